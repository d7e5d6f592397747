"""From an index with captions to what a prior trains on: (z, caption) pairs.

Published embeddings come so, LAION's for one: no picture is needed to train a prior on them. But the rows of an index have
length one, where CLIP's z have lengths of their own: a prior that learnt from them gives z of length one, and says so.
"""

import numpy as np
import torch

from unclip.data.pool import Pairs
from unclip.errors import DataError
from unclip.search.layout import Index

ROUNDED = 0.01  # by which a length may miss one, after fp16


def read_pairs(index: Index, clip: str, width: int) -> Pairs:
    """All rows that have a caption, in fp32; `clip` is the fingerprint, `width` E of the CLIP that they must be of.

    Whose CLIP made an index of others cannot be seen but by E. DataError for another CLIP and for no captions.
    """
    made_by = None if index.manifest is None else index.manifest.clip
    if made_by is not None and made_by.fingerprint != clip:
        raise DataError(
            f"{index.folder} was made with another CLIP, {made_by.name} ({made_by.fingerprint[:12]}): give that one"
        )
    if index.width != width:
        raise DataError(f"{index.folder} has embeddings of {index.width} numbers, but this CLIP's have {width}")
    z, captions = [], []
    for shard, images in enumerate(index.images):
        table = index.table(shard, ["caption"])
        given = table.column("caption").to_pylist() if "caption" in table.column_names else [None] * len(images)
        rows = [row for row, caption in enumerate(given) if caption and caption.strip()]
        captions += [given[row] for row in rows]
        z.append(torch.from_numpy(images[rows].astype(np.float32)))
    if not captions:
        raise DataError(f"{index.folder} has no captions: a prior learns from pictures that have some")
    joined = torch.cat(z)
    return Pairs(joined, captions, unit=bool(((joined.norm(dim=1) - 1).abs() < ROUNDED).all()))
