"""How fast pictures are indexed and found: a ViT-B/32 against transformers', a query over a million rows against faiss.

Indexed are JPEGs of 256 to 512 px, drawn here, by `unclip.search.build`: decoding, CLIP, the table and flushes to the disk
are in it; once as usual, and once by bytes, as with `--int8`. transformers' CLIPModel has the same random weights. It opens
the same files with Pillow, prepares them by its processor, and embeds them in batches of the size that suits it best: in
fp32, as installed, and in bf16, by whichever of the two ways is the faster for it. Before timing, the embeddings of all are
compared.

A query goes over a million rows of 512 numbers in fp16, mapped from a file and held as bytes, as a server holds them. The
limit is what torch takes to add up the fp16 as 64-bit numbers on as many threads: to read them once. faiss has the rows in
memory, in fp32 and in fp16.

    python benchmarks/clip.py [--rounds 3] [--only index] [--quick]
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from lib.measure import PRODUCT_FLOPS, Contestant, Result, best_of, count_flops, matrix_product, print_results
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPImageProcessorPil, CLIPModel

from unclip import int8
from unclip.clip import BATCH, Clip, load_clip
from unclip.device import has_bf16
from unclip.models.clip import CLIP, OPENAI_MEAN, OPENAI_STD, CLIPConfig, TextConfig, VisionConfig
from unclip.search.build import build
from unclip.search.layout import IMAGES, Index
from unclip.search.query import nearest
from unclip.search.rows import side_of
from unclip.search.sources import list_sources
from unclip.tokenizer import Tokenizer
from unclip.weights import rename
from unclip.weights.clip import hugging_face
from unclip.weights.store import Part, save_bundle

CPU = torch.device("cpu")
SHAPE = CLIPConfig(  # OpenAI's ViT-B/32, but for what reads captions, which nobody asks here
    embed=512,
    vision=VisionConfig(image_size=224, patch=32, width=768, layers=12, heads=12),
    text=TextConfig(context=16, vocab=640, width=64, layers=1, heads=1),
    act="quick_gelu",
    mean=OPENAI_MEAN,
    std=OPENAI_STD,
)
PICTURES, SIDES, QUALITY = 256, (256, 512), 90
BATCHES = (8, 32, 128)
ALIKE = 0.999  # cosine with the peer's fp32 embedding: what bf16 and another way of cropping may cost
ROWS, WIDTH, K = 1_000_000, 512, 10

Given = TypeVar("Given")
Embed = Callable[[Sequence[Path], int], Tensor]
"""z (N, E) of files, in batches of so many."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures indexed a second, and seconds of a query.")
    parser.add_argument("--rounds", type=int, default=3, help="after one that warms up")
    parser.add_argument("--only", choices=("index", "query"))
    parser.add_argument("--quick", action="store_true", help="few pictures and rows: does it run?")
    args = parser.parse_args()
    torch.manual_seed(0)
    versions = f"transformers {transformers.__version__}, faiss {faiss.__version__}"
    print(f"{versions}; {torch.get_num_threads()} threads; bf16 in hardware: {has_bf16(CPU)}")
    results = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        if args.only != "query":
            results += indexing(Path(folder), 32 if args.quick else PICTURES, args.rounds + 1)
        if args.only != "index":
            results += querying(Path(folder), ROWS // 50 if args.quick else ROWS, 4 * args.rounds + 1)
    print_results("clip", results)


def indexing(folder: Path, count: int, rounds: int) -> list[Result]:
    """The rows of the table that say how many pictures are indexed a second."""
    paths = draw_pictures(folder / "pictures", count)
    clip, model = twins(folder / "clip")
    ways = {"indexed": clip} | ({"indexed with --int8": load_clip(folder / "clip").use_int8()} if int8.available() else {})
    peers = their_ways(model)
    for name, own in ways.items():
        compare(name, own, peers["fp32"], paths[:BATCH])
    batches = {name: best_batch(embed, paths[:BATCH]) for name, embed in peers.items()}
    half = min((name for name in peers if name != "fp32"), key=lambda name: batches[name][1])
    print(f"batches: ours {BATCH}, theirs {', '.join(f'{name} {size}' for name, (size, _) in batches.items())}")
    listing, numbers = list_sources([folder / "pictures"]), iter(range(1 << 20))
    contestants: dict[str, Contestant] = {
        name: lambda own=own: build(listing, folder / f"index-{next(numbers)}", own) for name, own in ways.items()
    }
    contestants |= {name: partial(peers[name], paths, batches[name][0]) for name in ("fp32", half)}
    contestants |= {"decoding": lambda: [opened(path) for path in paths], "limit": matrix_product()}
    taken = best_of(contestants, seconds=0, least=rounds)
    flops = count_flops(lambda: clip.pixels(torch.zeros(1, 3, 224, 224)))
    print(f"{flops / 1e9:.1f} GFLOP a picture; decoding alone, on one thread: {count / taken['decoding']:.0f} a second")
    results = []
    for way, name in product(ways, ("fp32", half)):
        ours, theirs = count / taken[way], count / taken[name]
        share = ours * flops * taken["limit"] / PRODUCT_FLOPS
        what = f"JPEGs {way} by a ViT-B/32, transformers {name}"
        print(f"{ours:8.1f} /s   {what}: {theirs:.1f} /s, {ours / theirs:.2f} x, at {share:.0%} of the bf16 product")
        results.append(Result(what, ours, theirs, "/s", ours / theirs, share))
    return results


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of soft colours with some grain, of sides that are drawn too."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for path in paths:
        size = tuple(int(side) for side in rng.integers(*SIDES, 2, endpoint=True))
        coarse, fine = (Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)) for n in (8, 96))
        coarse, fine = (image.resize(size, Image.Resampling.BICUBIC) for image in (coarse, fine))
        Image.blend(coarse, fine, 0.2).save(path, quality=QUALITY)
    return paths


def twins(folder: Path) -> tuple[Clip, CLIPModel]:
    """Ours as it is loaded from a bundle, and theirs with the same weights, which fit into bf16."""
    network = CLIP(SHAPE)
    state = {name: tensor.bfloat16().float() for name, tensor in network.state_dict().items()}
    words = Tokenizer.train(["a picture"], vocab=SHAPE.text.vocab, context=SHAPE.text.context)
    part = Part("clip", {"model": SHAPE.model_dump(mode="json")}, state)
    save_bundle(folder, {"clip": part}, name="b-32", version="1", tokenizer_json=words.to_json(), card="", provenance={})
    vision, text = SHAPE.vision, SHAPE.text
    assert vision is not None
    seen = {"image_size": vision.image_size, "patch_size": vision.patch, "hidden_size": vision.width}
    seen |= {"intermediate_size": 4 * vision.width, "num_hidden_layers": vision.layers, "num_attention_heads": vision.heads}
    read = {"vocab_size": text.vocab, "max_position_embeddings": text.context, "hidden_size": text.width}
    read |= {"bos_token_id": 1, "eos_token_id": SHAPE.end_token}
    read |= {"intermediate_size": 4 * text.width, "num_hidden_layers": text.layers, "num_attention_heads": text.heads}
    theirs = CLIPModel(TheirConfig(vision_config=seen, text_config=read, projection_dim=SHAPE.embed)).eval()
    theirs.load_state_dict(rename.to_theirs(hugging_face(SHAPE), state))
    return load_clip(folder, device="cpu"), theirs


def their_ways(model: CLIPModel) -> dict[str, Embed]:
    """transformers as installed, and in bf16: its weights converted, or under autocast."""
    half = copy.deepcopy(model).to(torch.bfloat16)
    return {
        "fp32": partial(embed_theirs, model, nullcontext),
        "bf16": partial(embed_theirs, half, nullcontext),
        "bf16 autocast": partial(embed_theirs, model, partial(torch.autocast, "cpu", torch.bfloat16)),
    }


def embed_theirs(model: CLIPModel, casting: Callable[[], object], paths: Sequence[Path], batch: int) -> Tensor:
    """As transformers' own page on CLIP does it."""
    processor, rows = CLIPImageProcessorPil(), []
    for start in range(0, len(paths), batch):
        pictures = [opened(path) for path in paths[start : start + batch]]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(model.dtype)
        with casting():
            rows.append(model.get_image_features(pixel_values=pixels).pooler_output.float())
    return F.normalize(torch.cat(rows), dim=1)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def compare(name: str, clip: Clip, fp32: Embed, paths: Sequence[Path]) -> None:
    """AssertionError when the two do not embed alike: the same squares of pixels, and the same files each in its own way."""
    theirs = fp32(paths, BATCH)
    ours = F.normalize(clip.images([opened(path) for path in paths]), dim=1)
    cosine = float((ours * theirs).sum(dim=1).min())
    apart = float((theirs[:-1] * theirs[1:]).sum(dim=1).max())
    print(f"{name}: cosine of ours with theirs in fp32 {cosine:.5f} at least, of neighbours {apart:.5f} at most")
    assert cosine > ALIKE, "they do not embed alike"


def best_batch(embed: Embed, paths: Sequence[Path]) -> tuple[int, float]:
    """The size of batches that takes least, and its seconds, for some pictures."""
    taken = best_of({str(size): partial(embed, paths, size) for size in BATCHES}, seconds=0)
    best = min(BATCHES, key=lambda size: taken[str(size)])
    return best, taken[str(best)]


def querying(folder: Path, count: int, rounds: int) -> list[Result]:
    """The rows of the table that say what a query takes."""
    index = made_index(folder / "rows", count)
    q = F.normalize(torch.randn(1, WIDTH), dim=1)
    first, truth = timed(lambda: nearest(index, q, K)[1])
    mapped, _ = timed(lambda: nearest(index, q, K)[1])
    held, _ = timed(lambda: side_of(index, "image").hold())
    print(f"{count:,} rows: the first query {first:.0f} ms, the second {mapped:.0f} ms, holding them as bytes {held:.0f} ms")
    words = [block.rows.view(torch.int64) for block in side_of(index, "image").blocks]
    flat = faiss.IndexFlatIP(WIDTH)
    halves = faiss.IndexScalarQuantizer(WIDTH, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for part in np.array_split(index.images[0], 64):
        flat.add(part.astype(np.float32))
        halves.add(part.astype(np.float32))
    peers = {"reading the rows once": lambda: [block.sum() for block in words]}
    peers |= {f"faiss {name}": partial(other.search, q.numpy(), K) for name, other in (("fp32", flat), ("fp16", halves))}
    for name in ("fp32", "fp16"):
        same = np.isin(peers[f"faiss {name}"]()[1], truth.numpy()).mean()
        print(f"faiss {name} finds {same:.0%} of the {K} nearest")
    taken = best_of({"ours": lambda: nearest(index, q, K), **peers}, seconds=0, least=rounds)
    results = []
    for name in peers:
        ours, theirs = 1000 * taken["ours"], 1000 * taken[name]
        what = f"a query over {count:,} x {WIDTH} in fp16, peer: {name}"
        print(f"{ours:8.1f} ms   {what} {theirs:.1f} ms, {theirs / ours:.2f} x")
        results.append(Result(what, ours, theirs, "ms", theirs / ours, None))
    return results


def timed(task: Callable[[], Given]) -> tuple[float, Given]:
    """Milliseconds of one run, and what it gave."""
    began = time.perf_counter()
    given = task()
    return 1000 * (time.perf_counter() - began), given


def made_index(folder: Path, count: int) -> Index:
    """Random directions, as somebody else's index holds them: one file, no table."""
    (folder / IMAGES).mkdir(parents=True)
    path = folder / IMAGES / f"{IMAGES}_0.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (count, WIDTH))
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, 1 << 16):
        some = torch.randn(min(1 << 16, count - start), WIDTH, generator=generator)
        rows[start : start + len(some)] = F.normalize(some, dim=1).half().numpy()
    rows.flush()
    return Index(folder)


if __name__ == "__main__":
    main()
