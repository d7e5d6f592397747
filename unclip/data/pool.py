"""A pool: a source's first N samples drawn once, and what a CLIP makes of them, as arrays that training maps into memory.

Drawing, resizing and encoding a picture costs as much as a small network's training step, so it is done once:

    pool.json        size, count, where it came from
    images.npy       uint8 (N, S, S, 3)
    samples.jsonl    key, caption, meta of each
    embedded/        made by `embed`, for one CLIP:
        embedded.json    that CLIP's fingerprint, M captions
        z.npy            float32 (N, E), raw image embeddings
        caption.npy      int32 (N,), the row of each sample's caption
        pooled.npy       float32 (M, E); states.npy float16 (M, L, C); mask.npy bool (M, L); row 0 is the empty caption

Other folders may hold an `embedded/` too: that of an index, made by `embed_captions`, has z of unit length and says so.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from unclip import files
from unclip.data.source import Sample, Source
from unclip.errors import DataError
from unclip.images import from_pixels, resize
from unclip.models.clip import Text
from unclip.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
NULL_ROW = 0  # the empty caption's


class Encoder(Protocol):
    """The two towers of a CLIP."""

    def encode_image(self, images: Tensor) -> Tensor: ...

    def encode_text(self, ids: Tensor, mask: Tensor) -> Text: ...


def build(
    source: Source,
    out: str | Path,
    *,
    samples: int,
    size: int,
    name: str,
    progress: Progress | None = None,
    threads: int = 2,
) -> "Pool":
    """Draws positions 0..samples-1 of `source` at `size` px into the folder `out`, which must not exist yet."""
    out = Path(out)
    if out.exists():
        raise DataError(f"{out} exists already: remove it to build the pool anew")
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing_folder(out) as folder:
        images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.uint8, shape=(samples, size, size, 3))
        with open(folder / "samples.jsonl", "w", encoding="utf-8") as lines:
            for index, sample in enumerate(_drawn(source, samples, size, threads)):
                images[index] = sample.image
                record = {"key": sample.key, "caption": sample.caption, "meta": sample.meta}
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                if progress is not None:
                    progress(index + 1, samples)
        images.flush()
        (folder / "pool.json").write_text(json.dumps({"size": size, "count": samples, "source": name}, indent=1))
    return Pool(out)


def _drawn(source: Source, samples: int, size: int, threads: int) -> Iterator[Sample]:
    with ThreadPoolExecutor(threads) as workers:
        for start in range(0, samples, 256):
            yield from workers.map(lambda position: source.sample(position, size), range(start, min(start + 256, samples)))


class Joined:
    """Several sources one after the other, so many samples of each; then the last one goes on."""

    def __init__(self, parts: Sequence[tuple[Source, int]]):
        self._parts = parts

    def __len__(self) -> int:
        return sum(count for _, count in self._parts)

    def sample(self, position: int, size: int) -> Sample:
        for source, count in self._parts[:-1]:
            if position < count:
                return source.sample(position, size)
            position -= count
        return self._parts[-1][0].sample(position, size)


class Pool:
    """A pool on disk, its images mapped and its captions read."""

    def __init__(self, root: str | Path):
        self.root = Path(root)
        header = _header(self.root / "pool.json", {"size", "count"}, "a pool: make one with `unclip data pool`")
        self.size: int = header["size"]
        try:
            self.images: np.ndarray = np.load(self.root / "images.npy", mmap_mode="r")
            with open(self.root / "samples.jsonl", encoding="utf-8") as lines:
                self.samples: list[dict[str, Any]] = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise DataError(f"{self.root} is torn: {error}; remove it and make it anew") from None
        if len(self.samples) != header["count"] or len(self.images) != header["count"]:
            raise DataError(f"{self.root} is torn: it says {header['count']} samples and holds {len(self.samples)}")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def captions(self) -> list[str]:
        return [sample["caption"] for sample in self.samples]

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """uint8 (B, S, S, 3) of these rows; `images.from_pixels` makes them floats."""
        return torch.from_numpy(self.images[np.asarray(rows)])

    def tensor(self, rows: Sequence[int], size: int | None = None) -> Tensor:
        """These rows (B, 3, size, size) in [-1, 1]."""
        x = from_pixels(self.images[np.asarray(rows)])
        return x if size is None or size == self.size else resize(x, size)


class Embedded:
    """What a CLIP made of a pool: z of every image, the text encoder's answer for every distinct caption.

    `unit`: whether these z have lost their lengths, as those of an index have.
    """

    def __init__(self, pool: Pool | Path, *, clip: str | None = None):
        root = pool.root if isinstance(pool, Pool) else pool
        folder = root / "embedded"
        header = _header(folder / "embedded.json", {"clip"}, "an embedded pool: run `unclip data embed` on it")
        if clip is not None and header["clip"] != clip:
            raise DataError(f"{root} was embedded by another CLIP ({header['clip'][:12]}, not {clip[:12]}): embed it again")
        self.clip: str = header["clip"]
        self.unit: bool = header.get("unit", False)
        names = ("z", "caption", "pooled", "states", "mask")
        try:
            arrays = [torch.from_numpy(np.load(folder / f"{name}.npy")) for name in names]
        except (OSError, ValueError) as error:
            raise DataError(f"{folder} is torn: {error}; run `unclip data embed` again") from None
        self.z, caption, self.pooled, self.states, self.mask = arrays
        self.caption = caption.long()

    def text(self, rows: Tensor) -> Text:
        """The text encoder's answer for caption rows (B,), float32."""
        return Text(self.pooled[rows], self.states[rows].float(), self.mask[rows])


@torch.no_grad()
def embed(
    pool: Pool,
    clip: Encoder,
    tokenizer: Tokenizer,
    *,
    fingerprint: str,
    device: torch.device | str = "cpu",
    batch: int = 256,
    progress: Progress | None = None,
) -> Embedded:
    """Runs `clip`, whose weights have `fingerprint`, over the pool and keeps the answers beside it."""
    total = len(pool) + _distinct(pool.captions)
    z = []
    for start in range(0, len(pool), batch):
        rows = range(start, min(start + batch, len(pool)))
        z.append(clip.encode_image(pool.tensor(rows).to(device)).float().cpu())
        if progress is not None:
            progress(rows.stop, total)
    show = None if progress is None else lambda done, _: progress(len(pool) + done, total)
    pairs = Pairs(torch.cat(z), pool.captions)
    return embed_captions(
        pairs, pool.root, clip, tokenizer, fingerprint=fingerprint, device=device, batch=batch, progress=show
    )


@dataclass(frozen=True)
class Pairs:
    """z (N, E) of pictures, raw or of unit length, with the N captions."""

    z: Tensor
    captions: Sequence[str]
    unit: bool = False


@torch.no_grad()
def embed_captions(
    pairs: Pairs,
    root: Path,
    clip: Encoder,
    tokenizer: Tokenizer,
    *,
    fingerprint: str,
    device: torch.device | str = "cpu",
    batch: int = 256,
    progress: Progress | None = None,
) -> Embedded:
    """Runs `clip`, which these z are of, over the captions and keeps both in `root`."""
    captions = ["", *dict.fromkeys(caption for caption in pairs.captions if caption)]
    row = {caption: index for index, caption in enumerate(captions)}
    texts = []
    for start in range(0, len(captions), batch):
        tokens = tokenizer(captions[start : start + batch])
        text = clip.encode_text(tokens.ids.to(device), tokens.mask.to(device))
        texts.append(text.to("cpu"))
        if progress is not None:
            progress(min(start + batch, len(captions)), len(captions))
    with files.replacing_folder(root / "embedded") as folder:
        np.save(folder / "z.npy", pairs.z.numpy())
        np.save(folder / "caption.npy", np.array([row[caption] for caption in pairs.captions], dtype=np.int32))
        np.save(folder / "pooled.npy", torch.cat([text.pooled.float() for text in texts]).numpy())
        # numpy, because a CPU's autocast refuses to concatenate halves
        np.save(folder / "states.npy", np.concatenate([text.states.half().numpy() for text in texts]))
        np.save(folder / "mask.npy", torch.cat([text.mask for text in texts]).numpy())
        header = {"clip": fingerprint, "captions": len(captions)} | ({"unit": True} if pairs.unit else {})
        (folder / "embedded.json").write_text(json.dumps(header))
    return Embedded(root, clip=fingerprint)


def _distinct(captions: Sequence[str]) -> int:
    """How many captions are embedded: the empty one, and each other once."""
    return len({"", *captions})


def _header(path: Path, keys: set[str], kind: str) -> dict[str, Any]:
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        header = None
    if not isinstance(header, dict) or not keys <= header.keys():
        raise DataError(f"{path.parent} is not {kind}")
    return header
