"""Finding in all indices of a server: queries that wait together share the network's batches and the products."""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from unclip.clip import Clip, load_clip, look, unit
from unclip.errors import DataError, RequestError, UnclipError, WeightsError
from unclip.search.query import Hit, check_clip, hits_of_each, mixed
from unclip.server import uploads
from unclip.server.config import ServerConfig
from unclip.server.errors import ApiError
from unclip.server.search.drawing import draw
from unclip.server.search.opened import Kept, Opened, edition_of
from unclip.server.search.queries import Among, Found, Neighbour, Place, Query

ALIKE = 0.94  # the cosine above which two hits are one to who wants each once; clip-retrieval's

Key = TypeVar("Key", bound=Hashable)


@dataclass(eq=False)
class _Asked:
    """A query on its way to its answer. `parts`: its embeddings of length one, by whether they are of words or a picture."""

    query: Query
    parts: dict[str, Tensor] = field(default_factory=dict)
    opened: Any = None
    vector: Any = None
    answer: Found | Exception | None = None

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Whatever goes wrong inside is its answer, and nobody else's."""
        try:
            yield
        except Exception as error:
            self.answer = error


class Seeker:
    """All indices of a server and their CLIPs. UnclipError for one that cannot be opened."""

    def __init__(self, config: ServerConfig):
        self._config = config
        self._clips: dict[str, Clip] = {}
        self._turn = threading.Lock()
        self._opened = {name: self._open(name) for name in config.indices}

    @property
    def rows(self) -> dict[str, int]:
        """How many each index has."""
        return {name: len(opened) for name, opened in self._opened.items()}

    def find(self, queries: Sequence[Query]) -> list[Found | Exception]:
        """What each of them finds, or why it finds nothing."""
        asked = [_Asked(query) for query in queries]
        for one in asked:
            with one.failing():
                one.opened = self._current(one.query.index)
                one.parts |= _given(one.query, one.opened)
        for clip, some in _together(asked, lambda one: one.opened.clip).items():
            _embed(clip, some)
        for (opened, among), some in _together(asked, lambda one: (one.opened, one.query.among)).items():
            _search(opened, among, some)
        return [one.answer for one in asked if one.answer is not None]

    def look(self, place: Place, side: int) -> bytes:
        """What a row shows, as a JPEG with no side longer than `side` px; ApiError 404 or 409."""
        opened = self._current(place.index)
        opened.check(place)
        return draw(opened.told(opened.index.rows([place.id]))[0], side)

    def tell(self, name: str, ids: Sequence[int]) -> Found:
        """What is told of some rows; ApiError 400 for a row that is not there."""
        opened = self._current(name)
        for id in ids:
            if id >= len(opened):
                raise ApiError(400, f"There is no row {id}: the index has {len(opened)}.", code="invalid_value", param="ids")
        rows = opened.told(opened.index.rows(ids))
        return Found(opened.edition, len(opened), [Neighbour(id, None, row) for id, row in zip(ids, rows, strict=True)])

    def _current(self, name: str) -> Opened:
        """An index as it stands on the disk now."""
        with self._turn:
            try:
                edition = edition_of(self._config.indices[name])
            except FileNotFoundError:  # another is just taking its place
                return self._opened[name]
            if edition != self._opened[name].edition:
                self._opened[name] = self._open(name)
            return self._opened[name]

    def _open(self, name: str) -> Opened:
        folder = self._config.indices[name]
        index = Kept(folder)
        made_by = None if index.manifest is None else index.manifest.clip.name
        where = self._config.clips.get(name, made_by)
        if where is None:
            raise DataError(
                f"{folder} does not say which CLIP made it: name that with clips.{name}=openai/clip-vit-large-patch14"
            )
        if where not in self._clips:
            try:
                self._clips[where] = load_clip(where, device=self._config.device.partition(",")[0].strip())
            except UnclipError as error:
                raise WeightsError(
                    f"cannot open {where}, the CLIP of {folder}: {error}; or name it with clips.{name}=FOLDER"
                ) from None
        check_clip(index, self._clips[where])
        return Opened(index, self._clips[where], edition_of(folder))


def _together(asked: Sequence[_Asked], key: Callable[[_Asked], Key]) -> dict[Key, list[_Asked]]:
    """Those that have no answer yet, by what they share."""
    groups: dict[Key, list[_Asked]] = defaultdict(list)
    for one in asked:
        if one.answer is None:
            groups[key(one)].append(one)
    return groups


def _given(query: Query, opened: Opened) -> dict[str, Tensor]:
    """What of a query is an embedding already; ApiError for what cannot be sought."""
    if query.among == "text" and opened.index.texts is None:
        raise ApiError(400, "This index has no captions to search among.", code="no_captions", param="modality")
    given = {}
    if query.like is not None:
        opened.check(query.like)
        given["picture"] = opened.vectors([query.like.id])[0]
    if query.embedding is not None:
        if len(query.embedding) != opened.index.width:
            message = f"The embedding has {len(query.embedding)} numbers, expected {opened.index.width}."
            raise ApiError(400, message, code="invalid_value", param="embedding_input")
        given["picture"] = unit(torch.tensor(query.embedding, dtype=torch.float64)[None])[0]
    return given


def _embed(clip: Clip, asked: Sequence[_Asked]) -> None:
    """Has one CLIP read all words and look at all pictures of some queries."""
    seen = []
    for one in asked:
        if one.query.picture is not None:
            with one.failing():
                seen.append((one, look(uploads.read_any(one.query.picture).image, clip.size)))
    read = [(one, one.query.text) for one in asked if one.query.text and one.answer is None]
    try:
        for (one, _), z in zip(read, unit(clip.texts([text for _, text in read])), strict=True):
            one.parts["words"] = z
        for (one, _), z in zip(seen, unit(clip.images([picture for _, picture in seen])), strict=True):
            one.parts["picture"] = z
    except Exception as error:
        for one in asked:
            one.answer = one.answer or error


def _search(opened: Opened, among: Among, asked: Sequence[_Asked]) -> None:
    """Answers queries over one index, those for shots and those for rows each by one product."""
    for one in asked:
        with one.failing():
            one.vector = _vector(one)
    for answer, shots in ((_answer_shots, True), (_answer_rows, False)):
        some = [one for one in asked if one.answer is None and one.query.shots == shots]
        try:
            if some:
                answer(opened, among, some)
        except Exception as error:
            for one in some:
                one.answer = one.answer or error


def _vector(asked: _Asked) -> Tensor:
    """What is looked for, of length one; ApiError where nothing is left of it."""
    parts, weight = asked.parts, asked.query.weight
    weights = {"words": 1 - weight, "picture": weight} if len(parts) > 1 else dict.fromkeys(parts, 1.0)
    try:
        return mixed([(parts[name], weights[name]) for name in parts])
    except RequestError:
        why = "the words and the picture cancel out" if len(parts) > 1 else "the embedding points nowhere"
        raise ApiError(400, f"There is nothing to look for: {why}.", code="invalid_value") from None


def _answer_shots(opened: Opened, among: Among, asked: Sequence[_Asked]) -> None:
    vectors, most = torch.stack([one.vector for one in asked]), max(one.query.k for one in asked)
    found: list[list[Hit]] = [[] for _ in asked]
    if len(opened):
        found = hits_of_each(opened.index, vectors, most, among=among, find=opened.find(among))
    for one, hits in zip(asked, found, strict=True):
        rows = opened.told([hit.row for hit in hits[: one.query.k]])
        neighbours = [Neighbour(hit.id, hit.score, row) for hit, row in zip(hits, rows, strict=False)]
        one.answer = Found(opened.edition, len(opened), neighbours)


def _answer_rows(opened: Opened, among: Among, asked: Sequence[_Asked]) -> None:
    if not len(opened):
        for one in asked:
            one.answer = Found(opened.edition, 0, [])
        return
    vectors, most = torch.stack([one.vector for one in asked]), max(one.query.k for one in asked)
    cosines, ids = opened.find(among)(vectors, most)
    for one, scores, found in zip(asked, cosines.tolist(), ids.tolist(), strict=True):
        with one.failing():
            one.answer = _found(opened, one.query, scores, found)


def _found(opened: Opened, query: Query, scores: Sequence[float], ids: Sequence[int]) -> Found:
    """The answer to one query: its rows as they are, or each of those that are alike once."""
    found = list(zip(ids, scores, strict=True))[: query.k]
    if query.unique and found:
        found = [found[first] for first in _firsts(opened.vectors([id for id, _ in found], query.among))]
    rows: list[Any] = opened.told(opened.index.rows([id for id, _ in found[: query.told]]))
    rows += [None] * (len(found) - len(rows))
    neighbours = [Neighbour(id, score, row) for (id, score), row in zip(found, rows, strict=True)]
    return Found(opened.edition, len(opened), neighbours)


def _firsts(z: Tensor) -> list[int]:
    """The first of each group of rows z (n, E) that are connected by cosines above ALIKE, as clip-retrieval deduplicates."""
    firsts = []
    seen = torch.zeros(len(z), dtype=torch.bool)
    for first in range(len(z)):
        if seen[first]:
            continue
        firsts.append(first)
        seen[first] = True
        group = torch.tensor([first])
        while len(group):
            near = torch.stack([(z[part] @ z.T > ALIKE).any(dim=0) for part in group.split(1024)]).any(dim=0) & ~seen
            seen |= near
            group = near.nonzero()[:, 0]
    return firsts
