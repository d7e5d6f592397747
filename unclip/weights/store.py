"""A bundle: one folder with everything that paints.

    icons/
      unclip.json            format, name, version, what each part is, size and sha256 of each file, provenance
      decoder/config.json    the network's config, as plain values
      decoder/model.safetensors    or model-00001-of-00003.safetensors, ... when it would pass 45 MB
      prior/ ...
      tokenizer.json         of the `tokenizers` library
      words.json             what the model knows and what is read as it, if it comes with words (unclip/words)
      README.md              the model card

Nothing is ever unpickled. Weights are mapped from the file, not read, and take the place of the tensors of a module that was
built on the meta device, so that loading costs one conversion and no initialisation. A module to be filled so may therefore
hold parameters and persistent buffers only: a non-persistent buffer would stay on meta, and `fill` asserts that none does.

The store knows tensors and names; which network a part's `kind` means is the business of whoever loads it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import safetensors
import torch
from pydantic import Field
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from unclip.config import Config
from unclip.errors import ConfigError, WeightsError
from unclip.files import replacing_folder, write_bytes

FORMAT = 1
MANIFEST, CONFIG, TOKENIZER, CARD, WORDS = "unclip.json", "config.json", "tokenizer.json", "README.md", "words.json"
_CACHE_LINE = 64  # bytes
LARGEST_FILE = 45_000_000  # bytes: code hosts refuse files past 50 MB ...
LARGE_PART, LARGE_FILE = 1_000_000_000, 500_000_000  # ... and take no part as large as this, so its files may be larger

Module = TypeVar("Module", bound=nn.Module)
PartName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
# The only paths a manifest may name, so that a foreign one cannot point outside its folder.
FileName = Annotated[
    str, Field(pattern=r"^((config|tokenizer|words)\.json|README\.md|model(-\d{5}-of-\d{5})?\.safetensors)$")
]


class FileEntry(Config):
    """Size in bytes and sha256 (hexadecimal) of one file."""

    bytes: int
    sha256: str


class PartEntry(Config):
    """One network: its kind, its size, its files."""

    kind: str
    parameters: int
    files: dict[FileName, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.bytes for file in self.files.values())


class Manifest(Config):
    """What `unclip.json` says."""

    format: Literal[1]
    name: str
    version: str
    parts: dict[PartName, PartEntry]
    files: dict[FileName, FileEntry]
    provenance: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all files but the manifest itself."""
        return sum(part.size for part in self.parts.values()) + sum(file.bytes for file in self.files.values())


@dataclass(frozen=True)
class Part:
    """A network to save: `kind` says which, `config` its shape as JSON values, `state` its state_dict."""

    kind: str
    config: dict[str, Any]
    state: Mapping[str, Tensor]


def save_bundle(
    folder: str | Path,
    parts: Mapping[str, Part],
    *,
    name: str,
    version: str,
    tokenizer_json: str,
    card: str,
    provenance: dict[str, Any],
    dtype: torch.dtype | None = torch.bfloat16,
) -> Path:
    """Writes a bundle; floating tensors are stored in `dtype`, others, and with None all, as they are.

    `parts` is read one part at a time, so that a mapping that loads them when asked needs no more memory than the largest.
    The folder appears whole: it is written beside its place and renamed. A bundle that stood there is replaced; anything
    else that stood there is left alone (WeightsError), and so is the old bundle when the disk is full (WeightsError).
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise WeightsError(f"{folder} exists and is not a bundle: give another folder, or remove it")
    try:
        with replacing_folder(folder) as temporary:
            entries = {part: _write_part(temporary / part, parts[part], dtype) for part in parts}
            files = {
                TOKENIZER: _write_file(temporary / TOKENIZER, tokenizer_json.encode()),
                CARD: _write_file(temporary / CARD, card.encode()),
            }
            manifest = Manifest(format=FORMAT, name=name, version=version, parts=entries, files=files, provenance=provenance)
            _write_file(temporary / MANIFEST, _json_bytes(manifest.model_dump()))
    except OSError as error:
        raise WeightsError(f"cannot save the bundle {folder}: {error.strerror or error}") from None
    return folder


def put_words(folder: str | Path, text: str) -> None:
    """Puts `words.json` into a bundle that is there, in place of one that it had; WeightsError when the disk is full.

    A kill leaves a whole bundle, with words or without.
    """
    folder, content = Path(folder), text.encode()
    manifest = read_manifest(folder)
    rest = {name: entry for name, entry in manifest.files.items() if name != WORDS}
    entry = FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    try:
        if WORDS in manifest.files:
            _write_manifest(folder, manifest, rest)
        write_bytes(folder / WORDS, content)
        _write_manifest(folder, manifest, {**rest, WORDS: entry})
    except OSError as error:
        raise WeightsError(f"cannot put words into the bundle {folder}: {error.strerror or error}") from None


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a bundle; WeightsError when there is none or it is of another format."""
    path = Path(folder) / MANIFEST
    try:
        return Manifest.parse(read_json(path), where=str(path))
    except ConfigError as error:
        raise WeightsError(str(error)) from None


def load_part(folder: str | Path, name: str, *, verify: bool = False) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A part's config and its tensors, mapped from the file in the dtype they were stored in.

    Sizes are always checked against the manifest; `verify` reads every byte and checks the sha256 too.
    """
    folder = Path(folder)
    parts = read_manifest(folder).parts
    if name not in parts:
        raise WeightsError(f"{folder} has no part {name!r}: it has {', '.join(parts)}")
    state: dict[str, Tensor] = {}
    for file, entry in parts[name].files.items():
        path = folder / name / file
        _check_file(path, entry, verify=verify)
        if file != CONFIG:
            state |= _map_tensors(path)
    return read_json(folder / name / CONFIG), state


def read_config(folder: str | Path, name: str) -> dict[str, Any]:
    """A part's config, as it was saved."""
    return read_json(Path(folder) / name / CONFIG)


def read_tokenizer(folder: str | Path) -> str:
    """The JSON text of a bundle's tokenizer."""
    folder = Path(folder)
    entry = read_manifest(folder).files.get(TOKENIZER)
    if entry is None:
        raise WeightsError(f"{folder} lists no {TOKENIZER}: it is not a whole bundle")
    _check_file(folder / TOKENIZER, entry, verify=True)
    return (folder / TOKENIZER).read_text(encoding="utf-8")


def read_words(folder: str | Path) -> str | None:
    """The text of a bundle's `words.json`; None where it comes without."""
    folder = Path(folder)
    entry = read_manifest(folder).files.get(WORDS)
    if entry is None:
        return None
    _check_file(folder / WORDS, entry, verify=True)
    return (folder / WORDS).read_text(encoding="utf-8")


def verify_bundle(folder: str | Path) -> None:
    """Reads every file that the manifest lists; WeightsError names the first that is not what was saved."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    for file, entry in manifest.files.items():
        _check_file(folder / file, entry, verify=True)
    for name in manifest.parts:
        load_part(folder, name, verify=True)


def build(make: Callable[[], Module], state: Mapping[str, Tensor], *, where: str) -> Module:
    """`make()` in fp32 on the meta device, filled with `state`: no memory goes to weights that are thrown away."""
    with torch.device("meta"):
        module = make()
    return fill(module, state, where=where)


def fill(
    module: Module, state: Mapping[str, Tensor], *, where: str, types: Mapping[str, torch.dtype] | None = None
) -> Module:
    """Puts `state` into `module` by assignment and returns it. Floats are converted to fp32, or by name to `types`.

    Strict both ways: a missing, surplus or wrongly shaped tensor is a WeightsError that begins with `where` and names it.
    """
    check_fit(module.state_dict(), state, where=where)
    types = types or {}
    converted = {name: _aligned(_convert(tensor, types.get(name, torch.float32))) for name, tensor in state.items()}
    module.load_state_dict(converted, assign=True)
    for kind, tensors in (("parameter", module.named_parameters()), ("buffer", module.named_buffers())):
        for name, tensor in tensors:
            assert not tensor.is_meta, f"{where}: the {kind} {name} is not in the state dict and stayed on the meta device"
    return module


def check_fit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], *, where: str) -> None:
    """WeightsError unless `state` has exactly the expected names, shapes and kinds of numbers."""
    refuse(where, "the tensor {} is missing", expected.keys() - state.keys())
    refuse(where, "the tensor {} has no place in this network", state.keys() - expected.keys())
    for name, place in expected.items():
        given = state[name]
        if given.shape != place.shape or given.is_floating_point() != place.is_floating_point():
            raise WeightsError(f"{where}: {name} is {describe(given)}, the network expects {describe(place)}")


def shipped_folder() -> Path:
    """Where the bundles that come with the package lie."""
    return Path(__file__).parents[1] / "bundles"


def shipped_bundles() -> list[str]:
    """The names of the bundles that come with the package."""
    return sorted(path.parent.name for path in shipped_folder().glob(f"*/{MANIFEST}"))


def find_bundle(name_or_path: str | Path) -> Path:
    """The folder of a shipped bundle, by its name, or of any other, by its path; WeightsError lists what there is."""
    shipped = shipped_bundles()
    if str(name_or_path) in shipped:
        return shipped_folder() / str(name_or_path)
    path = Path(name_or_path)
    if (path / MANIFEST).is_file():
        return path
    if path.is_dir():
        raise WeightsError(f"{path} is not a bundle: it has no {MANIFEST}")
    choice = f"shipped: {', '.join(shipped)}" if shipped else "none is shipped"
    raise WeightsError(f"there is no model {str(name_or_path)!r} ({choice}): give one of these or the folder of a bundle")


def _write_manifest(folder: Path, manifest: Manifest, files: dict[str, FileEntry]) -> None:
    write_bytes(folder / MANIFEST, _json_bytes(manifest.model_copy(update={"files": files}).model_dump()))


def _write_part(folder: Path, part: Part, dtype: torch.dtype | None) -> PartEntry:
    folder.mkdir()
    files = {CONFIG: _write_file(folder / CONFIG, _json_bytes(part.config))}
    size = sum(_stored_bytes(tensor, dtype) for tensor in part.state.values())
    groups = _split(part.state, dtype, LARGEST_FILE if size < LARGE_PART else LARGE_FILE)
    for i, names in enumerate(groups, start=1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        # A clone each, because safetensors refuses tensors that share memory (tied weights).
        group = {name: _convert(part.state[name].detach().cpu(), dtype).contiguous().clone() for name in names}
        files[file] = _write_file(folder / file, to_safetensors(group, metadata={"format": "pt"}))
    return PartEntry(kind=part.kind, parameters=sum(tensor.numel() for tensor in part.state.values()), files=files)


def _split(state: Mapping[str, Tensor], dtype: torch.dtype | None, limit: int) -> list[list[str]]:
    """Consecutive names whose tensors, stored as `dtype`, have at most `limit` bytes; one larger than that goes alone."""
    groups: list[list[str]] = [[]]
    size = 0
    for name, tensor in state.items():
        stored = _stored_bytes(tensor, dtype)
        if groups[-1] and size + stored > limit:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += stored
    return groups


def _stored_bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    stored = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.numel() * stored.itemsize


def _write_file(path: Path, content: bytes) -> FileEntry:
    path.write_bytes(content)
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _check_file(path: Path, entry: FileEntry, *, verify: bool) -> None:
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            raise WeightsError(f"{path} has {size} bytes, the manifest says {entry.bytes}: the file is torn, copy it again")
        if verify:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != entry.sha256:
                raise WeightsError(
                    f"{path} has the sha256 {digest[:12]}..., the manifest says {entry.sha256[:12]}...: copy it again"
                )
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None


def _map_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {' '.join(str(error).split())}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; WeightsError where it is missing or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds a {type(values).__name__}, expected an object")
    return values


def _json_bytes(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _convert(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _aligned(tensor: Tensor) -> Tensor:
    """A mapped tensor that begins between two cache lines, copied to where torch puts its own.

    In which order a product adds up depends on it, and the same weights must paint the same bytes out of any file.
    """
    return tensor if tensor.data_ptr() % _CACHE_LINE == 0 else tensor.clone()


def describe(tensor: Tensor) -> str:
    """Its kind of numbers and its shape, for messages."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def refuse(where: str, message: str, names: Iterable[str]) -> None:
    """WeightsError that names the first of `names`, unless there is none."""
    if names := sorted(names):
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise WeightsError(f"{where}: {message.format(names[0])}{more}")


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """sha256 of the weights as a bundle stores them, in bf16: the same for a run and for the bundle packed from it."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu()
        stored = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        digest.update(name.encode())
        digest.update(stored.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
