"""The nearest rows of an index to some embeddings, exactly: a quick product finds candidates, a wide one compares them.

A row's quick product is off its cosine by less than a bound that is known (`_slack`). So when the last of the wanted is
further from the last candidate than that, no row that is no candidate can be among the wanted: the answer is the one of the
whole product. Queries for which that does not hold, since many rows are nearly alike, are asked again in fp32 with more
candidates, and at last of every row in fp64. Dimension letters: Q queries, E embedding, N rows, k wanted, m candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unclip.clip import Clip, unit
from unclip.device import has_bf16
from unclip.errors import DataError, RequestError
from unclip.search.codes import lost
from unclip.search.layout import Index
from unclip.search.rows import Among, Block, Side, side_of

FEW = 8  # queries that are faster one by one, at the speed of memory, than together in bf16
SPARE = {torch.int8: 1014, torch.float16: 30, torch.bfloat16: 246, torch.float32: 1014}  # candidates beyond k
SERIAL = 1 << 15  # numbers up to which torch works on one thread, and nobody waits for another
RESCORED = 1 << 22  # numbers of candidates that are in memory at once
SHOT = 0.9  # cosine from which neighbouring frames of a video are of one shot
MOST = 4096  # rows that are gone through for enough shots
CANCELLED = 1e-3  # length of a sum of unit vectors that points nowhere in particular

Progress = Callable[[int, int], object]
Find = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""What gives cosines (Q, k) and ids (Q, k) for queries (Q, E) and k."""


class Hit(NamedTuple):
    """A row that was found: its id, its cosine with the query, and what the index tells of it."""

    id: int
    score: float
    row: dict[str, Any]


def nearest(
    index: Index, queries: Tensor, k: int, *, among: Among = "image", progress: Progress | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines (Q, k) fp32 and row ids (Q, k) of the rows nearest to queries (Q, E) of any length, best first.

    Among equal ones the lower id is first. Where fewer rows than k have a direction, there are as many. `progress` is told
    how many rows of how many have been gone through. DataError for an index that is empty, has no captions when looking
    among them, or has another width; RequestError for k below 1 and a query without a direction.
    """
    side = asked(index, queries, k, among)
    q = torch.nn.functional.normalize(queries.detach().cpu().double(), dim=1)
    k = min(k, len(side))
    if not len(q):
        return torch.zeros(0, k), torch.zeros(0, k, dtype=torch.int64)
    cosines = torch.full((len(q), k), -torch.inf)
    ids = torch.zeros((len(q), k), dtype=torch.int64)
    unsure = torch.arange(len(q))
    for dtype in _types(side, len(q)):
        last, candidates = _candidates(side, q[unsure].float(), k + SPARE[dtype], dtype, progress)
        cosines[unsure], ids[unsure] = compare(side, q[unsure], candidates, k)
        sure = (cosines[unsure, -1] > last + _slack(side, q[unsure], last, dtype)) | (last == -torch.inf)
        unsure = unsure[~sure]
        if not len(unsure):
            break
    else:
        cosines[unsure], ids[unsure] = _of_every_row(side, q[unsure], k, progress)
    there = int(cosines.isfinite().sum(dim=1).max())  # the same for every query
    return cosines[:, :there], ids[:, :there]


def mixed(parts: Sequence[tuple[Tensor, float]]) -> Tensor:
    """The unit vector (E,) of some embeddings (E,), each made one of length one, times its weight; below 0: less of it.

    RequestError for none, and when they cancel out.
    """
    if not parts:
        raise RequestError("nothing to look for: expected a sentence or a picture")
    vectors = torch.stack([unit(embedding) * weight for embedding, weight in parts])
    total = vectors.sum(dim=0)
    most = max(abs(weight) for _, weight in parts)
    if not bool(total.isfinite().all()) or float(total.norm()) <= CANCELLED * most:
        weights = ", ".join(f"{weight:g}" for _, weight in parts)
        raise RequestError(f"what is looked for cancels out at the weights {weights}: nothing is left to look for")
    return unit(total)


def hits(index: Index, query: Tensor, k: int, *, among: Among = "image") -> list[Hit]:
    """The k best rows for one query (E,), as `hits_of_each` gives them."""
    return hits_of_each(index, query[None], k, among=among)[0]


def hits_of_each(
    index: Index, queries: Tensor, k: int, *, among: Among = "image", find: Find | None = None
) -> list[list[Hit]]:
    """The k best rows for each query (Q, E), but of a shot of a video its best frame alone, and a file's caption once.

    There are fewer where there are no more, or none among the best MOST rows. `find`: how rows are found, `nearest` by
    default; raises what that does.
    """
    find = find or (lambda some, count: nearest(index, some, count, among=among))
    found: list[list[Hit]] = [[] for _ in queries]
    ask, short = k, list(range(len(queries)))
    while short:
        cosines, ids = find(queries[short], ask)
        rows = iter(index.rows(ids.flatten().tolist()))
        for number, scores, places in zip(short, cosines.tolist(), ids.tolist(), strict=True):
            found[number] = _merged(index, [Hit(*hit) for hit in zip(places, scores, rows, strict=False)], among)
        more = ids.shape[1] == ask < MOST
        short = [number for number in short if len(found[number]) < k] if more else []
        ask *= 4
    return [each[:k] for each in found]


def check_clip(index: Index, clip: Clip) -> None:
    """DataError when the index was made with another CLIP; of an index of others only the width can be known."""
    made_by = None if index.manifest is None else index.manifest.clip
    if made_by is not None and made_by.fingerprint != clip.fingerprint:
        raise DataError(
            f"{index.folder} was made with another CLIP, {made_by.name} ({made_by.fingerprint[:12]}), not {clip.name} "
            f"({clip.fingerprint[:12]}): give that one"
        )
    if index.width != clip.width:
        raise DataError(
            f"{index.folder} has embeddings of {index.width} numbers, but those of {clip.name} have {clip.width}: "
            "give the CLIP that made it"
        )


def asked(index: Index, queries: Tensor, k: int, among: Among) -> Side:
    """The side that is looked through, when it can be asked that."""
    if k < 1:
        raise RequestError(f"{k} neighbours: expected 1 or more")
    if not len(index):
        raise DataError(f"{index.folder} is empty: nothing to find")
    side = side_of(index, among)
    if queries.ndim != 2 or queries.shape[1] != side.width:
        raise DataError(
            f"{index.folder} has embeddings of {side.width} numbers: expected queries (Q, {side.width}), "
            f"not {tuple(queries.shape)}"
        )
    lengths = queries.detach().double().norm(dim=1)
    if not bool((lengths.isfinite() & (lengths > 0)).all()):
        raise RequestError("a query is zeros or not finite: it points nowhere")
    return side


def _types(side: Side, queries: int) -> Sequence[torch.dtype]:
    """In which so many queries are multiplied, one after the other until they are sure."""
    if queries > FEW:
        return (torch.bfloat16, torch.float32) if has_bf16(torch.device("cpu")) else (torch.float32,)
    return (torch.int8, torch.float16, torch.float32) if side.held else (torch.float16, torch.float32)


def _candidates(side: Side, q: Tensor, m: int, dtype: torch.dtype, progress: Progress | None) -> tuple[Tensor, Tensor]:
    """The ids (Q, m) of the rows whose quick products with q (Q, E) are best, and what no other row's exceeds (Q,)."""
    best, ids = torch.zeros(len(q), 0), torch.zeros(len(q), 0, dtype=torch.int64)
    for block in side.blocks:
        values, places = [best], [ids]
        for place, cosines in _quick(block, q, dtype):
            some, where = cosines.topk(min(m, cosines.shape[1]), dim=1)
            values.append(some)
            places.append(where + (block.start + place))
        best, order = torch.cat(values, dim=1).topk(min(m, sum(some.shape[1] for some in values)), dim=1)
        ids = torch.cat(places, dim=1).gather(1, order)
        if progress is not None:
            progress(block.start + len(block.rows), len(side))
    return best[:, -1] if m < len(side) else torch.full((len(q),), -torch.inf), ids


def _quick(block: Block, q: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """Nearly the cosines (Q, n) with some of a block's rows, and where these begin; -inf for rows without a direction."""
    place = 0
    if dtype == torch.int8:
        cosines = block.codes.cosines(q)
        yield place, cosines if block.void is None else cosines.masked_fill_(block.void, -torch.inf)
        return
    for products in _narrow(block, q) if dtype == torch.float16 and block.narrow else _wide(block, q, dtype):
        rows = slice(place, place + products.shape[1])
        cosines = products * block.inverse[rows]
        yield place, cosines if block.void is None else cosines.masked_fill_(block.void[rows], -torch.inf)
        place = rows.stop


def _narrow(block: Block, q: Tensor) -> Iterator[Tensor]:
    """Products in fp16, summed in fp32, at nearly the speed of memory; then handed out in pieces."""
    yield from (q.half() @ block.rows.T).split(SERIAL // len(q), dim=1)


def _wide(block: Block, q: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    narrow = q.to(dtype) if dtype == torch.bfloat16 else q
    for part in block.widened():
        yield narrow @ part.to(narrow.dtype).T  # to bf16 by way of fp32, since nothing else is fast


def _slack(side: Side, q: Tensor, cosines: Tensor, dtype: torch.dtype) -> Tensor:
    """By how much a quick product may be off the cosine (Q,): what rounding the query, the rows, and the product takes."""
    lengths = torch.finfo(torch.float16).eps / 2 if side.unit else 0.0  # which are taken for one
    summed = 2 * q.shape[1] * torch.finfo(torch.float32).eps
    if dtype == torch.int8:
        return lost(q.float()) + max(block.codes.error for block in side.blocks) + lengths + summed
    half = torch.finfo(dtype).eps / 2
    query = (q.to(dtype).double() - q).norm(dim=1)
    rows = half if dtype == torch.bfloat16 else 0.0  # which are fp16, or exact
    return (query + rows + lengths + half * (cosines.abs() + half) + summed).float()


def compare(side: Side, q: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of the candidates (Q, m) by their cosines with unit vectors (Q, E) in fp64, rounded to fp32.

    -inf for what is no row: an id below 0, or a row without a direction.
    """
    ids = candidates.sort(dim=1).values
    few = max(1, RESCORED // (ids.shape[1] * side.width))
    parts = zip(q.split(few), ids.split(few), strict=True)
    cosines = [_cosines(side.take(some.clamp(min=0)), part[:, None]) for part, some in parts]
    return _best(torch.cat(cosines).masked_fill_(ids < 0, -torch.inf), ids, k)


def _cosines(rows: Tensor, q: Tensor) -> Tensor:
    """Of rows (..., E) and unit vectors, summed in the same order whatever stands beside; -inf without a direction."""
    wide = rows.double()
    lengths = wide.square().sum(dim=-1).sqrt()
    cosines = (wide * q).sum(dim=-1) / lengths
    return cosines.float().nan_to_num(nan=-torch.inf, posinf=-torch.inf)


def _best(cosines: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of rows in the order of their ids: the lower id first among equal ones."""
    values, order = cosines.sort(dim=1, descending=True, stable=True)
    return values[:, :k], ids.gather(1, order[:, :k])


def _of_every_row(side: Side, q: Tensor, k: int, progress: Progress | None) -> tuple[Tensor, Tensor]:
    """The k best of all rows by their cosines with unit vectors (Q, E) in fp64, rounded to fp32."""
    best, ids = torch.zeros(len(q), 0), torch.zeros(len(q), 0, dtype=torch.int64)
    done = 0
    for block in side.blocks:
        for part in block.widened():
            wide = part.double()
            cosines = (q @ wide.T / wide.norm(dim=1)).float().nan_to_num_(nan=-torch.inf, posinf=-torch.inf)
            places = torch.arange(done, done + len(wide)).expand(len(q), -1)
            best, ids = _best(torch.cat([best, cosines], dim=1), torch.cat([ids, places], dim=1), k)
            done += len(wide)
            if progress is not None:
                progress(done, len(side))
    return best, ids


def _merged(index: Index, found: Sequence[Hit], among: Among) -> list[Hit]:
    """The best of those that show the same: of a shot, and among captions of a file, since all its rows have one."""
    if among == "text":
        shown = {hit.id: hit.row["image_path"] or hit.id for hit in found}
    else:
        shown = {hit.id: hit.id for hit in found}
        frames: dict[str, list[int]] = {}
        for hit in found:
            if hit.row.get("kind") == "frame":
                frames.setdefault(hit.row["image_path"], []).append(hit.id)
        for ids in frames.values():
            for one, two in pairwise(sorted(ids)):
                if _one_shot(index, one, two):
                    shown[two] = shown[one]
    best: dict[Any, Hit] = {}
    for hit in found:
        best.setdefault(shown[hit.id], hit)
    return list(best.values())


def _one_shot(index: Index, first: int, last: int) -> bool:
    """Whether each frame from one row of a video to a later one looks like the frame before it."""
    z = unit(side_of(index, "image").take(torch.arange(first, last + 1)))
    return bool(((z[1:] * z[:-1]).sum(dim=1) >= SHOT).all())
