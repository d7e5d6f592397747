"""Looking at data before training on it: a contact sheet with captions, and what the samples are like in numbers.

Any `Source` will do; an icons set is also counted by category, style and split.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from PIL import Image

from unclip.data.folder import FolderSource
from unclip.data.icons import IconStream
from unclip.data.shards import ShardSource
from unclip.data.source import Sample, Source
from unclip.images import grid

CAPTION_EDGES = (0, 3, 5, 8, 12, 20, 40, 80)  # words
SIDE_EDGES = (0, 64, 128, 256, 512, 1024, 2048, 4096)  # pixels of the short side
ASPECT_EDGES = (0, 0.5, 0.75, 0.95, 1.05, 1.33, 2)  # width / height
COLUMNS = 8
MOST_READ = 2000  # samples that the figures rest on


def draw_samples(source: Source, count: int, size: int) -> list[Sample]:
    """The samples at positions 0 .. count - 1."""
    return [source.sample(position, size) for position in range(count)]


def contact_sheet(samples: Sequence[Sample]) -> Image.Image:
    """The samples' pictures in rows of eight, each caption below its picture."""
    return grid([Image.fromarray(sample.image) for sample in samples], COLUMNS, [sample.caption for sample in samples])


def report(source: Source, samples: Sequence[Sample]) -> dict[str, Any]:
    """Figures about a source and the samples drawn from it, as plain values.

    Keys: `items`, `sampled`, `caption_words` (histogram), `captions_distinct`; for foreign pictures `short_side`, `aspect`,
    `broken`; for an icons set `header` and `categories`.
    """
    result: dict[str, Any] = {
        "kind": type(source).__name__,
        "items": len(source),
        "sampled": len(samples),
        "caption_words": histogram([len(sample.caption.split()) for sample in samples], CAPTION_EDGES),
        "captions_distinct": len({sample.caption for sample in samples}),
    }
    if isinstance(source, IconStream):
        header = source.drawings.header
        result["header"] = {
            key: header[key] for key in ("kept", "things", "splits", "styles", "categories", "left_out", "failed")
        }
        result["scenes"] = dict(sorted(Counter(sample.meta["category"] for sample in samples).items()))
    if isinstance(source, FolderSource | ShardSource):
        sizes = [(sample.meta["width"], sample.meta["height"]) for sample in samples]
        result["short_side"] = histogram([min(size) for size in sizes], SIDE_EDGES)
        result["aspect"] = histogram([width / height for width, height in sizes], ASPECT_EDGES)
        result["broken"] = {"count": len(source.faults.found), "limit": source.faults.limit, "named": source.faults.found}
    return result


def histogram(values: Sequence[float], edges: Sequence[float]) -> dict[str, int]:
    """How many values are at least one edge and below the next; the last bin has no end. Empty bins are left out."""
    bins = Counter(max(index for index, edge in enumerate(edges) if value >= edge) for value in values)
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)] + [f"{edges[-1]:g} and more"]
    return {names[index]: bins[index] for index in sorted(bins)}
