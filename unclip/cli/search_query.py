"""`unclip search query`: what an index has that is nearest to sentences and pictures."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from unclip.clip import Clip
    from unclip.search.layout import Index
    from unclip.search.query import Hit


def query(
    index: Path = typer.Argument(help="An index."),
    sentences: list[str] = typer.Argument(None, help="What to look for; sentences and pictures are mixed into one query."),
    image: list[Path] = typer.Option(None, "--image", "-i", help="A picture to look for; may be repeated."),
    weight: list[float] = typer.Option(
        None,
        "--weight",
        "-w",
        help="Of each sentence, then of each picture, in their order; below 0: less of it. All 1 without.",
    ),
    k: int = typer.Option(10, "-k", help="So many neighbours."),
    among: Literal["image", "text"] = typer.Option("image", "--among", help="Compare with the pictures, or their captions."),
    queries: Path = typer.Option(None, "--queries", help="Instead of all that: a file of queries, a sentence a line."),
    sheet: Path = typer.Option(None, "--sheet", help="Also draw what is found, as a PNG."),
    approximate: bool = typer.Option(
        None,
        "--approximate/--exact",
        help="Look only into some of the cells of `compress`; so by itself past a million rows.",
    ),
    clip: str = typer.Option(None, "--clip", help="The CLIP that made the index; the one that this names by default."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or mps."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Print what is nearest to a sentence, a picture or a mixture of them: cosine, path, and the moment of a video.

    Example: unclip search query photos.index "a red bicycle" "snow" --image park.png -w 1 -w -0.5 -w 0.7 --sheet found.png
    """
    from unclip.cli.console import note, print_json
    from unclip.cli.generate import read_prompts
    from unclip.errors import RequestError
    from unclip.search.approximate import choose
    from unclip.search.ask import clip_of, embed_each, embed_mix
    from unclip.search.layout import Index

    if queries is not None and (sentences or image or weight or sheet is not None):
        raise RequestError("--queries has all that is looked for: give no sentence, picture, weight or sheet beside it")
    asked = read_prompts(queries) if queries is not None else sentences or []
    opened = Index(index)
    cells, how = choose(opened, among, approximate)
    eyes = clip_of(opened, clip, device=device)
    z = embed_each(eyes, asked) if queries is not None else embed_mix(eyes, asked, image or [], weight or [])[None]
    _note_cut(eyes, asked)
    found = _find(opened, z, k, among, cells)
    if how is not None:
        note(how)
    if sheet is not None:
        _draw(found[0], sheet)
    told = [[_told(hit) for hit in hits] for hits in found]
    if as_json and queries is None:
        parts = {"sentences": asked, "images": list(map(str, image or [])), "weights": weight or []}
        print_json({"index": str(index), "clip": eyes.name, "among": among, **parts, "hits": told[0]})
    elif as_json:
        answers = [{"query": sentence, "hits": hits} for sentence, hits in zip(asked, told, strict=True)]
        print_json({"index": str(index), "clip": eyes.name, "among": among, "answers": answers})
    else:
        heads = [f"{sentence}\n" for sentence in asked] if queries is not None else [""]
        print("\n\n".join(head + "\n".join(map(_line, hits)) for head, hits in zip(heads, told, strict=True)))


def _note_cut(eyes: "Clip", sentences: list[str]) -> None:
    from unclip.cli.console import note

    for sentence, cut in zip(sentences, eyes.tokenizer(sentences).cut if sentences else (), strict=True):
        if cut:
            note(f"{eyes.name} reads only the beginning of this: {sentence}")


def _find(index: "Index", z: Any, k: int, among: Literal["image", "text"], cells: Any) -> "list[list[Hit]]":
    from unclip.cli.console import progress
    from unclip.search.query import hits_of_each, nearest

    with progress() as bars:
        task = bars.add_task("searching")
        exactly = partial(
            nearest, index, among=among, progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
        return hits_of_each(index, z, k, among=among, find=exactly if cells is None else cells.nearest)


def _draw(found: "list[Hit]", place: Path) -> None:
    from unclip.cli.console import note
    from unclip.images import save_png
    from unclip.search.sheet import draw_sheet

    drawn, faults = draw_sheet(found)
    save_png(drawn, place)
    for fault in faults:
        note(f"a blank tile: {fault}")
    note(f"drawn: {place}")


def _told(hit: "Hit") -> dict[str, Any]:
    moment = hit.row.get("time")
    known = {"path": hit.row["image_path"], "time": moment, "caption": hit.row["caption"]}
    return {"id": hit.id, "score": round(hit.score, 4), **known}


def _line(hit: dict[str, Any]) -> str:
    from unclip.search.video import clock

    moment = "" if hit["time"] is None else f" {clock(hit['time'])}"
    caption = f"  {hit['caption']}" if hit["caption"] else ""
    return f"{hit['score']:.4f}  {hit['path'] or hit['id']}{moment}{caption}"
