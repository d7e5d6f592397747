"""Whether CLIP finds the picture that a caption tells of, among a thousand and in a film: one JSON object.

    python scripts/retrieval_figures.py --clip icons --judge icons-judge --data data/icons

recall   the share of captions whose picture is among the first 1, 5 and 10 of a thousand, by the cosine of raw embeddings
film     the same of the frames of a film: each picture is shown for a second, encoded in H.264, decoded and indexed by
         `unclip.search.build` twice a second, equal frames as one. Found is a frame whose stretch holds the middle of the
         picture's second

Pictures and captions are those of the suite (unclip/evaluate/suite.py): drawings as they are, on white, under their
canonical caption, and compositions. A thousand are

train             drawings that training holds
pair              the held-out drawings of things that training holds in other styles, 430, and of `train` as many as lack
scenes-held-out   compositions that hold what no training scene does

and of `pair` only the held-out ones are asked for. Where two pictures have one caption, either is right; what is true of
another picture in other words counts as wrong, and ties as a guess. `thing`: the first one shows the right thing, if in
another style. The judge (docs/judge-card.md), a CLIP trained apart, says how hard it is. Intervals are over captions.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.cli.console import guarded, note, print_json
from unclip.clip import Clip, load_clip, unit
from unclip.evaluate.metrics import credit, mean_figure
from unclip.evaluate.suite import Item, icons_suite
from unclip.images import make_folder
from unclip.search.build import build
from unclip.search.layout import Index
from unclip.search.query import nearest
from unclip.search.sources import list_sources

SPLITS = ("train", "pair", "scenes-held-out")
AMONG = 1000
FIRST = (1, 5, 10)
FILM_SIDE, FPS = 256, 10
EVERY = 0.5  # seconds
RESAMPLES = 2000


def recalled(cosines: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Of each caption (Q,): whether a right picture is among the k nearest; the chance of it where that is a tie.

    `cosines` and `right` are (Q, N), and every caption has a right picture.
    """
    return np.array([credit(row[told].max(), row[~told], k) for row, told in zip(cosines, right, strict=True)])


def figure(values: np.ndarray) -> dict[str, float]:
    return mean_figure(values, resamples=RESAMPLES).rounded()


def recall(clip: Clip, asked: Sequence[Item], shown: Sequence[Item]) -> dict[str, Any]:
    """How many captions of `asked` find their picture among those `shown`."""
    captions = np.array([item.prompt for item in shown])
    z, texts = unit(clip.images([item.real for item in shown])), unit(clip.texts([item.prompt for item in asked]))
    cosines = (texts.double() @ z.double().T).numpy()
    right = np.stack([captions == item.prompt for item in asked])
    figures = {f"at {k}": figure(recalled(cosines, right, k)) for k in FIRST}
    if asked[0].category == "single":
        things = np.array([thing(item) for item in shown])
        figures["thing"] = figure(recalled(cosines, np.stack([things == thing(item) for item in asked]), 1))
    return figures


def thing(item: Item) -> str:
    return item.meta["drawings"][0].partition("/")[2]


def among_many(clips: Sequence[Clip], data: Path, count: int) -> dict[str, Any]:
    """Recall of each split by each CLIP."""
    items = icons_suite(data, samples=count, size=clips[0].size, splits=SPLITS)
    asked = {split: [item for item in items if item.split == split] for split in SPLITS}
    shown = asked | {"pair": [*asked["pair"], *asked["train"]][:count]}
    report: dict[str, Any] = {}
    for split in SPLITS:
        said = [item.prompt for item in shown[split]]
        report[split] = {
            "captions": len(asked[split]),
            "among": len(shown[split]),
            "captions said twice": sum(said.count(item.prompt) > 1 for item in asked[split]),
            "captions cut": sum(clips[0].tokenizer([item.prompt for item in asked[split]]).cut),
            **{clip.name: recall(clip, asked[split], shown[split]) for clip in clips},
        }
        note(f"{split}: {report[split]}")
    return report


def write_film(pictures: Sequence[Image.Image], path: Path) -> None:
    """Each picture for a second, in H.264 at its usual quality."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *pictures[0].size, "yuv420p"
        for picture in pictures:
            for _ in range(FPS):
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


def in_film(clip: Clip, items: Sequence[Item], captions: int, film: Path) -> dict[str, Any]:
    """How often the frames that are nearest to a caption show its picture: of the first so many captions, and of all."""
    out = film.with_name(f"{clip.name}.index")
    report = build(list_sources([film]), out, clip, every=EVERY)
    index = Index(out)
    _, ids = nearest(index, clip.texts([item.prompt for item in items]), max(FIRST))
    rows = index.rows(range(len(index)))
    starts, ends = (np.array([row[name] for row in rows]) for name in ("time", "until"))
    middle = np.arange(len(items))[:, None] + 0.5
    found = np.asarray((starts[ids.numpy()] <= middle) & (middle < ends[ids.numpy()]))  # (Q, k)
    return {
        "seconds": len(items),
        "frames": report.rows,
        **{
            f"{count} captions": {f"at {k}": figure(found[:count, :k].max(axis=1)) for k in FIRST}
            for count in dict.fromkeys((captions, len(items)))
        },
    }


def films(clips: Sequence[Clip], data: Path, seconds: int, captions: int, out: Path | None) -> dict[str, Any]:
    """A film of training drawings and one of held-out ones, searched by each CLIP."""
    items = icons_suite(data, samples=seconds, size=FILM_SIDE, splits=("train", "pair"))
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for split in ("train", "pair"):
            shown = [item for item in items if item.split == split]
            film = make_folder((out or Path(temporary)) / split) / "film.mp4"
            write_film([item.real for item in shown], film)
            report[split] = {clip.name: in_film(clip, shown, captions, film) for clip in clips}
            note(f"film of {split}: {report[split]}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="How often CLIP finds the picture that a caption tells of.")
    parser.add_argument("--clip", default="icons")
    parser.add_argument("--judge", default="icons-judge", help="a CLIP trained apart, which is asked the same")
    parser.add_argument("--data", type=Path, default=Path("data/icons"), help="the prepared icons set")
    parser.add_argument("--seconds", type=int, default=300, help="of a film, as many as pictures")
    parser.add_argument("--captions", type=int, default=100, help="asked of a film")
    parser.add_argument("--out", type=Path, help="keep the films and their indices in this folder")
    parser.add_argument("--quick", action="store_true", help="few of everything: whether it runs, no figures to tell")
    args = parser.parse_args()
    among, seconds, captions = (24, 12, 6) if args.quick else (AMONG, args.seconds, args.captions)
    clips = [load_clip(name, precision="fp32") for name in (args.clip, args.judge)]
    recalls = among_many(clips, args.data, among)
    print_json({"among": recalls, "film": films(clips, args.data, seconds, captions, args.out)})


if __name__ == "__main__":
    raise SystemExit(guarded(main))
