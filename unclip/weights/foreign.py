"""Tensors out of files that others published; nothing in such a file is ever executed.

Read are safetensors files, whole or in shards; what torch saves (a zip of `data.pkl` and one stored record for each storage;
before 1.6 a stream of pickles with the storages behind them); and TorchScript archives, whose `data.pkl` holds the module.

A pickle is a program that asks for things by name and calls them. Here the names are the keys of one table, what stands
behind each is a constructor of this module and never the thing of that name, and only these constructors can be called.
A caller may have further names read as `Inert` objects; a file that asks for any other is refused.

Tensors are mapped, not read: they look into a private map of the file, which goes when the last of them goes.
"""

import contextlib
import io
import json
import mmap
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import torch
from torch import Tensor

from unclip.errors import WeightsError

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_HEADER = 30  # bytes of a zip's local header before the name
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001  # torch/serialization.py
_DEEPEST = 64  # modules or tuples inside one another
_TUPLES = (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
_REFUSED = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEWOBJ_EX, pickle.BYTEARRAY8, pickle.NEXT_BUFFER)
_BIG_ENDIAN = "it was saved on a big-endian machine"
_NAMES = ("Half", "BFloat16", "Float", "Double", "Short", "Int", "Long", "Bool")  # torch's for storages
_DTYPES: dict[str, torch.dtype] = {f"{name}Storage": getattr(torch, name.lower()) for name in _NAMES}
_DTYPES |= {"CharStorage": torch.int8, "ByteStorage": torch.uint8}


class Inert:
    """Stands for an object of a class that is not read: it swallows whatever the file does to it.

    `name` is the qualified name that the file gave; `state` what the file would have restored the object from, as data.
    """

    def __init__(self, name: str):
        self.name = name
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<inert {self.name}>"

    def append(self, *item: object) -> None:
        """Nothing, for classes that are containers."""

    extend = add = __setitem__ = append


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of one published file by name, mapped from it in the dtype that they were stored in.

    `path` is a safetensors file, the index of one that is in shards (`*.safetensors.index.json`), or a file that torch saved
    (.bin, .pt, .pth, .ckpt, .th) and that is a flat mapping of names to tensors. Anything else is a WeightsError.
    """
    path = Path(path)
    return _read_shards(path) if path.name.endswith(".index.json") else _read_flat(path)


def read_pickle(path: str | Path, *, inert: frozenset[str] = frozenset()) -> Any:
    """The object in a file that torch saved: tensors, plain containers, numbers and strings.

    Parameters come back as tensors, a defaultdict as a dict. A class named in `inert` ("packaging.version.Version") gives
    `Inert` objects; a file that asks for anything else is a WeightsError that says for what. So is one that is torn.
    """
    contents = _map(path := Path(path))
    if contents[:4] == _ZIP:
        return _Archive(path, contents).unpickle(inert.__contains__)
    if contents[:1] == _PICKLE:
        return _read_legacy(path, contents, inert.__contains__)
    raise WeightsError(f"{path} is neither a safetensors file nor one that torch saved: check that it is the right file")


def read_script(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive (OpenAI's CLIP is published so), by their dotted names in the module.

    Parameters, buffers and other attributes that are tensors, scalar ones too; the code is not looked at.
    """
    path = Path(path)
    if not is_script(path):
        raise WeightsError(f"{path} is not a TorchScript archive: expected one that torch.jit.save wrote")
    root = _Archive(path, _map(path)).unpickle(lambda name: name.startswith(("__torch__.", "torch.jit._pickle.")))
    with _reading(path):
        return dict(_walk(root, ""))


def is_script(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive; WeightsError when it cannot be read or is a torn zip file."""
    contents = _map(path := Path(path))
    return contents[:4] == _ZIP and _Archive(path, contents).is_script


@dataclass(frozen=True)
class _Constructor:
    """What a name in a pickle stands for. It is no callable, so that no opcode but those overridden below calls it."""

    make: Callable[..., Any]


@dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are views of, as a flat tensor, and where they lie."""

    values: Tensor
    where: str


def _load_tuple(load: Callable[[Any], None], unpickler: "_Unpickler") -> None:
    """Refuses tuples nested deep, which as keys would overrun the C stack: hashing recurses without a limit."""
    load(unpickler)
    built, depths = unpickler.stack[-1], unpickler.depths
    depths[id(built)] = 1 + max((depths.get(id(item), 0) for item in built if type(item) is tuple), default=0)
    if depths[id(built)] > _DEEPEST:
        raise ValueError("its tuples are nested too deep")


class _Unpickler(pickle._Unpickler):
    """The one in Python, not the one in C: that one's opcodes cannot be overridden, and a file can blow up its memo."""

    stack: list[Any]

    def __init__(self, file: Any, path: Path, storage: Callable[..., _Storage], is_inert: Callable[[str], bool]):
        super().__init__(file)
        self._path = path
        self._storage = storage
        self._is_inert = is_inert
        self.depths: dict[int, int] = {}  # of tuples on the stack, by id

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}".replace("__builtin__.", "builtins.", 1)  # Python 2's name for them
        if asked in _ADMITTED:
            return _ADMITTED[asked]
        if self._is_inert(asked):
            return Inert(asked)
        asked = " ".join(asked.split())[:100]
        raise WeightsError(f"{self._path} asks for {asked}: only tensors and plain containers are read")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), _, int(numel), *view) if numel >= 0 and not any(view):
                return self._storage(key, dtype, numel)
        raise ValueError(f"a storage is given as {pid!r}")

    def load_reduce(self) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if isinstance(called, Inert):
            self.stack.append(Inert(called.name))
        elif isinstance(called, _Constructor):
            self.stack.append(called.make(*arguments))
        else:
            raise ValueError(f"a {type(called).__name__} is called")

    def load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if isinstance(built, Inert):
            built.state = state
        elif not isinstance(built, OrderedDict):  # a state dict's has the attribute _metadata: of no use here
            raise ValueError(f"the state of a {type(built).__name__} is set")

    def refuse(self) -> None:
        raise ValueError("it uses an opcode that torch does not")

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        **dict.fromkeys((code[0] for code in _REFUSED), refuse),
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        **{code[0]: partial(_load_tuple, pickle._Unpickler.dispatch[code[0]]) for code in _TUPLES},
        pickle.BUILD[0]: load_build,
    }


class _Archive:
    """A zip file as torch writes it: `root/data.pkl`, `root/data/0`, ..., all stored as they are."""

    def __init__(self, path: Path, contents: mmap.mmap):
        with _reading(path), zipfile.ZipFile(path) as archive:
            self._entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in self._entries if f"/{name}".endswith("/data.pkl")]
        if not pickles:
            raise WeightsError(f"{path} is a zip file without a data.pkl: torch did not save it, check what it is")
        self._path = path
        self._contents = contents
        self._root = min(pickles, key=len).removesuffix("data.pkl")
        self.is_script = f"{self._root}constants.pkl" in self._entries

    def unpickle(self, is_inert: Callable[[str], bool]) -> Any:
        with _reading(self._path):
            if f"{self._root}byteorder" in self._entries and self._contents[self._span("byteorder")] != b"little":
                raise ValueError(_BIG_ENDIAN)
            storages = _Storages(self._contents, lambda key: self._span(f"data/{key}"))
            pickled = io.BytesIO(self._contents[self._span("data.pkl")])
            return _Unpickler(pickled, self._path, storages, is_inert).load()

    def _span(self, record: str) -> slice:
        """Where a record's bytes lie. Its local header says so: the directory has other names and extras."""
        entry = self._entries.get(self._root + record)
        if entry is None:
            raise ValueError(f"the record {record} is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"the record {record} is compressed")
        header = self._contents[entry.header_offset : entry.header_offset + _HEADER]
        start = entry.header_offset + _HEADER + sum(int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
        end = start + entry.file_size
        if len(header) < _HEADER or header[:4] != _ZIP or end > len(self._contents):
            raise ValueError(f"the record {record} is not in the file")
        return slice(start, end)


class _Storages:
    """The storages of one file, each mapped once: tensors that shared memory share it again."""

    def __init__(self, contents: mmap.mmap, span: Callable[[str], slice]):
        self._contents = contents
        self._span = span
        self._mapped: dict[str, Tensor] = {}

    def __call__(self, key: str, dtype: torch.dtype, numel: int) -> _Storage:
        where, size = f"the storage {key}", numel * dtype.itemsize
        if numel == 0:
            return _Storage(torch.empty(0, dtype=dtype), where)
        if key not in self._mapped:
            span = self._span(key)
            if (count := span.stop - span.start) < size:
                raise ValueError(f"{where} has {count} bytes, expected {size}")
            raw = torch.frombuffer(self._contents, dtype=torch.uint8, count=count, offset=span.start)
            # Torch aligns the records of its zips; what lies elsewhere is copied to where its numbers are aligned.
            self._mapped[key] = raw.clone() if span.start % 8 else raw
        return _Storage(self._mapped[key][:size].view(dtype), where)


def _read_legacy(path: Path, contents: mmap.mmap, is_inert: Callable[[str], bool]) -> Any:
    """What torch saved before 1.6: a magic number, a version, the machine, the object, the storages' keys, the storages.

    Where the storages lie follows from the types that the object gives them, so that the object is read twice.
    """
    dtypes: dict[str, torch.dtype] = {}

    def unmapped(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        dtypes.setdefault(key, dtype)
        return _Storage(torch.empty(numel, dtype=dtype, device="meta"), f"the storage {key}")

    def read(storage: Callable[[str, torch.dtype, int], _Storage]) -> Any:
        return _Unpickler(contents, path, storage, is_inert).load()

    with _reading(path):
        if read(unmapped) != _LEGACY_MAGIC or read(unmapped) != _LEGACY_VERSION:
            raise WeightsError(f"{path} is a pickle that torch did not save: expected a file of torch.save")
        if read(unmapped)["little_endian"] is not True:
            raise ValueError(_BIG_ENDIAN)
        begin = contents.tell()
        read(unmapped)
        keys, position = read(unmapped), contents.tell()
        spans: dict[str, slice] = {}
        for key in keys:
            start = position + 8
            position = start + int.from_bytes(contents[position:start], "little") * dtypes[key].itemsize
            if max(start, position) > len(contents):
                raise ValueError(f"the storage {key} is not in the file")
            spans[key] = slice(start, position)
        contents.seek(begin)
        return read(_Storages(contents, spans.__getitem__))


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    """A view of a storage that stays inside it. `rest`: requires_grad, hooks, and metadata where it is conjugated."""
    if not isinstance(storage, _Storage) or any(rest[2:]):
        raise ValueError("a tensor is conjugated or of no storage")
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
        raise ValueError(f"a tensor has the size {size}, the stride {stride} and the offset {offset}")
    if 0 in size:
        return storage.values.new_empty(size)
    needed = offset + 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if needed > storage.values.numel():
        raise ValueError(f"{storage.where} holds {storage.values.numel()} numbers, a tensor of {size} needs {needed}")
    return storage.values.as_strided(size, stride, offset)


def _bytes(text: str = "", encoding: str = "latin1") -> bytes:
    """How the older protocols spell bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes are spelled in {encoding}")
    return text.encode("latin1")


def _plain_dict(factory: _Constructor | None = None) -> dict[Any, Any]:
    """For a defaultdict, which would grow when it is looked into."""
    if factory is not None and factory.make not in (dict, list):
        raise ValueError("a defaultdict has a default of its own")
    return {}


_ADMITTED: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _Constructor(_tensor),
    "torch._utils._rebuild_parameter": _Constructor(lambda data, requires_grad, hooks: data),
    "torch.Size": _Constructor(lambda lengths: torch.Size(map(int, lengths))),
    "torch.device": _Constructor(lambda kind, *index: torch.device(str(kind), *index)),
    "torch.storage.UntypedStorage": torch.uint8,  # counted in bytes
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    **{str(dtype): dtype for dtype in _DTYPES.values()},
    "collections.OrderedDict": _Constructor(OrderedDict),
    "collections.defaultdict": _Constructor(_plain_dict),
    **{f"builtins.{kind.__name__}": _Constructor(kind) for kind in (dict, list, set, frozenset)},
    "builtins.bytes": _Constructor(_bytes),
    "_codecs.encode": _Constructor(_bytes),
}


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if prefix.count(".") > _DEEPEST:
        raise ValueError("a module is inside itself")
    state = module.state if isinstance(module, Inert) else None
    if not isinstance(state, dict):
        raise ValueError(f"the module {prefix.removesuffix('.') or 'at its root'} has no attributes")
    for name, value in state.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Inert) and value.name.startswith("__torch__."):
            yield from _walk(value, f"{prefix}{name}.")


def _read_flat(path: Path) -> dict[str, Tensor]:
    contents = _map(path)
    header = int.from_bytes(contents[:8], "little")
    if path.suffix == ".safetensors" or (contents[8:9] == b"{" and header <= len(contents) - 8):
        with _reading(path), safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    if is_script(path):
        raise WeightsError(f"{path} is a TorchScript archive: expected a flat mapping of names to tensors")
    tensors = read_pickle(path)
    if not isinstance(tensors, dict):
        raise WeightsError(f"{path} holds a {type(tensors).__name__}: expected a flat mapping of names to tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            given = f"a {type(tensor).__name__} at {_one_line(repr(name))}"
            raise WeightsError(f"{path} holds {given}: expected a flat mapping of names to tensors")
    return dict(tensors)


def _read_shards(path: Path) -> dict[str, Tensor]:
    try:
        places = json.loads(_map(path)[:])["weight_map"]
        files = sorted(set(places.values()))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f'{path} is no index of shards: expected {{"weight_map": {{tensor: file}}}}') from None
    state: dict[str, Tensor] = {}
    for file in files:
        if not isinstance(file, str) or not file or any(mark in file for mark in "/\\:\0"):
            raise WeightsError(f"{path} names the file {file!r}: expected one beside it")
        shard = _read_flat(path.with_name(file))
        names = [name for name, place in places.items() if place == file]
        if missing := sorted(set(names) - shard.keys()):
            raise WeightsError(f"{path} says that {missing[0]} is in {file}: it is not, get both anew")
        state |= {name: shard[name] for name in names}
    return state


def _map(path: Path) -> mmap.mmap:
    """The whole file, mapped; what is written to the map stays out of the file."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise WeightsError(f"{path} is empty: get it anew")
            contents = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # readable alone, torch would warn of it
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if contents[:19] == b"version https://git":
        raise WeightsError(f"{path} is a git-lfs pointer, not the file itself: fetch that with `git lfs pull`")
    if contents[:64].lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not weights: get the file itself")
    return contents


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """One line about `path` in place of all the ways in which a torn or made up file fails."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "  # ours say what is wrong
        raise WeightsError(f"{path} is torn or of another kind ({_one_line(kind + str(error))}): get it anew") from None


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]
