"""How much memory a picture by a model of Karlo's size takes: all networks at once, and one at a time (`--offload`).

Writes a bundle of Karlo's shapes with random weights in bf16 (6.8 GB) into a temporary folder, then paints one picture of
256 px with a step or two of every stage in a fresh process each, and reads the most memory that process ever had. Weights
are mapped from the file; what of them is resident counts too.

    python benchmarks/memory.py [--folder DIR]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from lib.measure import Result, print_results
from torch import Tensor, nn

from unclip.config import Config
from unclip.models.clip import CLIP, CLIPConfig, TextConfig
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler
from unclip.tokenizer import END, PAD, START, Tokenizer
from unclip.weights import karlo, store

TOKENS = 49408
TEXT = CLIPConfig(
    embed=768,
    vision=None,
    text=TextConfig(context=77, vocab=TOKENS, width=768, layers=12, heads=12),
    act="quick_gelu",
    end_token=TOKENS - 1,
)
STEPS = ["--steps", "1", "--prior-steps", "1", "--upsampler-steps", "2", "--candidates", "1"]


class RandomParts(Mapping[str, store.Part]):
    """Karlo's networks with random weights, each made when it is asked for."""

    def __init__(self) -> None:
        sampled = {"prior": karlo.sampling_values(25, scale=4.0), "decoder": karlo.sampling_values(25, scale=8.0)}
        sampled["upsampler"] = karlo.sampling_values(7)
        noised = {"prior": karlo.diffusion_values("x0"), "decoder": karlo.diffusion_values("eps", learned=True)}
        noised["upsampler"] = karlo.diffusion_values("eps")
        self._made: dict[str, tuple[str, type[nn.Module], Config, dict]] = {
            "clip": ("clip", CLIP, TEXT, {}),
            "prior": ("prior", Prior, karlo.PRIOR, {}),
            "decoder": ("decoder", Decoder, karlo.DECODER, {}),
            "upsampler_256": ("upsampler", Upsampler, karlo.UPSAMPLER, {}),
            "upsampler_256_last": ("finisher", Upsampler, karlo.UPSAMPLER, {"finishes": "upsampler_256"}),
        }
        for kind, _, _, values in self._made.values():
            if kind in sampled:
                values |= {"sampling": sampled[kind], "diffusion": noised[kind]}

    def __getitem__(self, name: str) -> store.Part:
        kind, make, cfg, values = self._made[name]
        with torch.device("meta"):
            shapes = make(cfg).state_dict()
        generator = torch.Generator().manual_seed(0)
        state: dict[str, Tensor] = {
            key: torch.empty(place.shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            for key, place in shapes.items()
        }
        return store.Part(kind, {"model": cfg.model_dump(mode="json"), **values}, state)

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a picture by a model of Karlo's size.")
    parser.add_argument("--folder", type=Path, help="where 7 GB have room; a temporary folder if not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        bundle = Path(scratch) / "karlo"
        store.save_bundle(
            bundle, RandomParts(), name="karlo", version="0", tokenizer_json=words(), card="# random\n", provenance={}
        )
        parts = {name: part.size / 1e9 for name, part in store.read_manifest(bundle).parts.items()}
        weights, largest = sum(parts.values()), max(parts.values())
        print(f"weights in bf16: {weights:.2f} GB, the largest part {largest:.2f} GB")
        rows = []
        for what, options in (("all networks at once", []), ("one network at a time", ["--offload"])):
            peak, seconds = painted(bundle, Path(scratch) / "out", options)
            print(f"{what}: {peak:.2f} GB at most; seconds {json.dumps(seconds)}")
            rows.append(Result(f"peak memory, {what}; peer: its weights", peak, weights, "GB", weights / peak, None))
    print_results("memory", rows)


def painted(bundle: Path, out: Path, options: list[str]) -> tuple[float, dict[str, float]]:
    """The most memory, in GB, of a process that paints one picture, and its seconds."""
    arguments = [
        "generate",
        "a red cat",
        "--model",
        str(bundle),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--json",
        *STEPS,
        *options,
    ]
    code = "import resource, sys; from unclip.cli import main; code = main(); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); raise SystemExit(code)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=os.environ.copy())
    if done.returncode:
        raise SystemExit(done.stderr)
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes there, kilobytes elsewhere
    return int(done.stderr.split()[-1]) / unit, json.loads(done.stdout)["seconds"]


def words() -> str:
    """A tokenizer whose [end] is where CLIP's is."""
    tokenizer = json.loads(Tokenizer.train(["a red cat"], vocab=600, context=77).to_json())
    vocabulary = tokenizer["model"]["vocab"]
    ids = {PAD: 0, START: TOKENS - 2, END: TOKENS - 1}
    for token in tokenizer["added_tokens"]:
        token["id"] = vocabulary[token["content"]] = ids[token["content"]]
    return json.dumps(tokenizer)


if __name__ == "__main__":
    main()
