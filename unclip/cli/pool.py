"""`unclip data pool` and `unclip data embed`: draw a source once, run CLIP over it once, train on the result."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from unclip.data.source import Source


def pool(
    source: Path = typer.Argument(help="A folder of captioned pictures, webdataset tars, or an icons set."),
    out: Path = typer.Option(..., "--out", "-o", help="The folder to make."),
    samples: int = typer.Option(None, "--samples", min=1, help="Samples to draw; one epoch if not given."),
    size: int = typer.Option(64, "--size", min=8, help="Side in pixels."),
    seed: int = typer.Option(0, "--seed", help="Of the order, and of an icons set's scenes."),
    split: list[str] = typer.Option(None, "--split", help="Of an icons set: NAME or NAME:SAMPLES; several are joined."),
    scenes: float = typer.Option(0.0, "--scenes", min=0, max=1, help="Share of composed scenes, of an icons set."),
    plain: float = typer.Option(0.75, "--plain", min=0, max=1, help="Share of white backgrounds, of an icons set."),
    jitter: float = typer.Option(0.3, "--jitter", min=0, max=1, help="How far drawings move and shrink, of an icons set."),
) -> None:
    """Draw a source's first samples once, so that training reads arrays instead of decoding pictures.

    Example: unclip data pool data/icons --samples 50000 --scenes 0.2 --out data/train-64
    """
    from unclip.cli.console import progress
    from unclip.data.opening import open_source
    from unclip.data.pool import Joined, build
    from unclip.errors import ConfigError

    icons = (source / "icons.json").exists()
    if split and not icons:
        raise ConfigError(f"--split is for an icons set, which {source} is not")
    parts: list[tuple[Source, int]] = []
    for part in (split or ["train"]) if icons else [""]:
        name, _, count = part.partition(":")
        if count and not count.isdigit():
            raise ConfigError(f"--split {part}: expected NAME or NAME:SAMPLES")
        opened = _icons(source, seed, name, scenes, plain, jitter) if icons else open_source(source, seed)
        parts.append((opened, int(count) if count else len(opened)))
    joined = parts[0][0] if len(parts) == 1 else Joined(parts)
    total = samples or sum(count for _, count in parts)
    with progress() as bars:
        task = bars.add_task("drawing", total=total)
        made = build(
            joined,
            out,
            samples=total,
            size=size,
            name=str(source),
            progress=lambda done, _: bars.update(task, completed=done),
        )
    print(f"{len(made):,} samples at {made.size} px in {out}")


def embed(
    path: Path = typer.Argument(help="The pool to embed, or an index with captions."),
    clip: str = typer.Option(..., "--clip", help="A CLIP: a training run, a shipped model's name, or a bundle's folder."),
) -> None:
    """Run a CLIP over a pool once and keep z and the captions' states beside it, for the prior and the decoder.

    Of an index, z are its rows, for the prior alone.

    Example: unclip data embed data/train-64 --clip runs/clip
    """
    from unclip.cli.console import progress
    from unclip.data import pool as pools
    from unclip.device import autocast, pick_device
    from unclip.search.layout import IMAGES, Index
    from unclip.search.pairs import read_pairs
    from unclip.train.bundle import load_clip

    index = Index(path) if (path / IMAGES).is_dir() else None
    network, tokenizer, fingerprint = load_clip(clip)
    device = pick_device()
    with progress() as bars, autocast(device):
        task = bars.add_task("embedding", total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        network.to(device)
        if index is None:
            embedded = pools.embed(
                pools.Pool(path), network, tokenizer, fingerprint=fingerprint, device=device, progress=show
            )
        else:
            pairs = read_pairs(index, fingerprint, network.cfg.embed)
            embedded = pools.embed_captions(
                pairs, path, network, tokenizer, fingerprint=fingerprint, device=device, progress=show
            )
    print(f"{len(embedded.z):,} images and {len(embedded.pooled):,} captions embedded by {fingerprint[:12]}")
    if embedded.unit:
        print("its z have length one, as an index keeps them: so will those of a prior that learns from it")


def _icons(root: Path, seed: int, split: str, scenes: float, plain: float, jitter: float) -> "Source":
    from unclip.data.icons import IconStream

    return IconStream(root, seed, split=split, scenes=scenes, plain=plain, jitter=jitter)
