"""Drawn pictures, tars and videos for the tests of search, and ways to kill an indexing.

Run as a script, it forks an indexer for each kill, as `toy_training` does a trainer.
"""

import io
import json
import os
import random
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np
import torch
from PIL import Image
from toy_training import fork

from unclip.clip import Clip, load_clip
from unclip.search import build
from unclip.search.layout import IMAGES, Index, arrow
from unclip.search.sources import list_sources

NO_CAPTIONS: Mapping[int, str] = MappingProxyType({})


def drawn(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Coloured tiles, other ones for each number."""
    tiles = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(tiles).resize(size, Image.Resampling.NEAREST)


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    drawn(number).save(buffer, "PNG")
    return buffer.getvalue()


def fill(folder: Path, numbers: Sequence[int], captions: Mapping[int, str] = NO_CAPTIONS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:03}.png").write_bytes(png(number))
        if number in captions:
            (folder / f"{number:03}.txt").write_text(captions[number])
    return folder


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def film(path: Path, scenes: Sequence[int], *, seconds: float = 1, fps: int = 10, every_key: int = 250) -> Path:
    """A video of drawn pictures, each shown for so long, in H.264 with a key frame at least every so many."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(every_key)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in scenes:
            for _ in range(round(seconds * fps)):
                container.mux(stream.encode(av.VideoFrame.from_image(drawn(number, (64, 48)))))
        container.mux(stream.encode())
    return path


def foreign_index(folder: Path, shards: Sequence[np.ndarray]) -> Index:
    """An index of embeddings alone, as somebody else may have made it."""
    (folder / IMAGES).mkdir(parents=True)
    for number, shard in enumerate(shards):
        np.save(folder / IMAGES / f"{IMAGES}_{number}.npy", shard)
    return Index(folder)


def brute_force(matrix: np.ndarray, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and ids (Q, k) of one fp64 product, rounded to fp32; rows without a direction are last."""
    wide = torch.from_numpy(matrix.astype(np.float64))
    lengths = wide.norm(dim=1)
    directed = lengths.isfinite() & (lengths > 0)
    q = torch.nn.functional.normalize(queries.double(), dim=1)
    cosines = (q @ (wide / lengths[:, None]).T).float().masked_fill(~directed, -torch.inf)
    values, ids = cosines.sort(dim=1, descending=True, stable=True)
    return values[:, :k], ids[:, :k]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run(folder: Path, out: Path) -> None:
    """Brings `out` up to date with the pictures of `folder`, in parts of few."""
    build.PART, build.BATCH = 8, 4
    build.build(list_sources([folder / "pictures"]), out, clip_of(folder))


@lru_cache
def clip_of(folder: Path) -> Clip:
    """The CLIP of the indexers, loaded before they are forked, since that takes longer than their work."""
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # slow, and what a killed process has written is not lost
    arrow()
    clip = load_clip(folder / "clip", device="cpu", precision="fp32")
    assert clip.fingerprint
    return clip


def killed_at_random(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kills indexers from outside until `kills` have died, each index until it is through; how the indices ended."""
    rng = random.Random(seed)
    clip_of(folder)
    begun = time.monotonic()
    os.waitpid(fork(lambda: run(folder, folder / "whole")), 0)
    duration = time.monotonic() - begun
    died = indices = went_on = 0
    wrong = []
    while died < kills:
        out = folder / f"index-{indices}"
        indices += 1
        while True:
            child = fork(lambda out=out: run(folder, out))
            time.sleep(rng.uniform(0, duration))
            if died < kills:
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if status == 0:
                break
            assert status == signal.SIGKILL, "it failed by itself"
            died += 1
            went_on += any((out / build.BUILDING).glob("[!.]*"))
        if contents(out) != contents(folder / "whole"):
            wrong.append(out.name)
    return {"died": died, "went on": went_on, "wrong": wrong}


def dies_at_each_call(folder: Path) -> dict[str, object]:
    """Updates of `before` that die at their k-th fsync or rename, for every k, and go on; how they ended."""
    clip_of(folder)
    shutil.copytree(folder / "before", folder / "whole")
    os.waitpid(fork(lambda: run(folder, folder / "whole")), 0)
    wrong = []
    deaths = 0
    while True:
        out = folder / f"index-{deaths}"
        shutil.copytree(folder / "before", out)
        died = os.waitpid(fork(lambda out=out, at=deaths: _die_at(folder, out, at)), 0)[1] != 0
        resumed = not died or os.waitpid(fork(lambda out=out: run(folder, out)), 0)[1] == 0
        if not resumed or contents(out) != contents(folder / "whole"):
            wrong.append(out.name)
        if not died:
            left = [path.name for path in folder.glob(".*") if path.suffix != ".lock"]
            return {"deaths": deaths, "wrong": wrong, "left": left}
        deaths += 1


def _die_at(folder: Path, out: Path, at: int) -> None:
    calls = 0

    def counted(call: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*arguments)

        return wrapper

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    run(folder, out)


if __name__ == "__main__":
    name, root, *numbers = sys.argv[1:]
    print(json.dumps(globals()[name](Path(root), *map(int, numbers))))
