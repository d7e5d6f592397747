"""From what a user writes after `--model` to a model that can be loaded.

    icons                                     a bundle that comes with the package
    runs/icons                                the folder of a bundle
    karlo-v1-alpha/                           a folder in the diffusers layout, or one with Karlo's original files
    kakaobrain/karlo-v1-alpha[@revision]      a repository of the Hugging Face hub, from its cache if it is there

The hub is asked through `huggingface_hub`, so that HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean elsewhere.
"""

import re
from pathlib import Path

from unclip.errors import WeightsError
from unclip.layers import Activation
from unclip.models.glide_tokenizer import GlideTokenizer
from unclip.tokenizer import Tokenizer
from unclip.weights import store
from unclip.weights.source import ModelSource, PartSource

PUBLISHED = {
    "kakaobrain/karlo-v1-alpha": "Karlo: prompts to 256 px, 3.4 G parameters",
    "kakaobrain/karlo-v1-alpha-image-variations": "Karlo without its prior, with an image encoder",
    "kandinsky-community/kandinsky-2-1-prior": "CLIP L/14 and a prior for it",
    "kandinsky-community/kandinsky-2-2-prior": "CLIP bigG/14 and a prior for it",
    "openai/clip-vit-large-patch14": "CLIP L/14",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "CLIP H/14",
}
"""Repositories of the hub in the layouts that we read; others of these layouts load as well (docs/weights.md)."""

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
# What a repository may hold beside these is not fetched: other frameworks, samples, pickles where there are safetensors.
_WANTED = ["*.json", "*.txt", "*.safetensors", "*.model", "*.md"]
_PICKLED = ["*.bin", "*.ckpt", "*.th", "*.pt", "*.txt.gz"]


def open_model(model: str | Path) -> ModelSource:
    """The model that `model` names; WeightsError says what there is when it names none."""
    if str(model) in store.shipped_bundles():
        return open_bundle(store.shipped_folder() / str(model))
    path = Path(model)
    if (path / store.MANIFEST).is_file():
        return open_bundle(path)
    from unclip.weights import published  # not worth a shipped model's time

    if path.is_dir():
        return published.open_folder(path, name=path.resolve().name)
    if not path.exists() and _HUB_ID.fullmatch(str(model)):
        repository, _, revision = str(model).partition("@")
        return published.open_folder(pull(str(model)), name=repository + (f"@{revision}" if revision else ""))
    return open_bundle(store.find_bundle(model))  # which says what there is


def open_file(model: str | Path, tokenizer: Path | None, act: Activation | None = None) -> ModelSource:
    """A CLIP in one file; `tokenizer`: its vocabulary, or the folder where that is, None: beside it; `act`: as published."""
    from unclip.weights import published

    file = Path(model)
    return published.open_clip_file(file, name=file.stem, tokenizer=tokenizer or file.parent, act=act)


def cached(model: str) -> bool:
    """Whether the hub's cache has some of a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return (Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=model, repo_type="model") / "snapshots").is_dir()


def open_bundle(folder: Path) -> ModelSource:
    """A bundle of ours."""
    manifest = store.read_manifest(folder)
    card = folder / store.CARD

    def part(name: str, kind: str) -> PartSource:
        return PartSource(
            kind,
            store.read_config(folder, name),
            lambda: store.load_part(folder, name)[1],
            where=f"{folder}/{name}",
        )

    kind = GlideTokenizer if any(entry.kind == "glide" for entry in manifest.parts.values()) else Tokenizer
    return ModelSource(
        name=manifest.name,
        where=str(folder),
        networks={name: part(name, entry.kind) for name, entry in manifest.parts.items()},
        tokenizer=lambda context: kind.from_json(store.read_tokenizer(folder), context=context),
        words=lambda: store.read_words(folder),
        version=manifest.version,
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
        provenance=manifest.provenance,
    )


def pull(model: str, *, offline: bool | None = None) -> Path:
    """The folder of a hub repository's snapshot, "org/name" or "org/name@revision", fetched unless the cache has it.

    WeightsError where it cannot be had: no such repository, no network, or nothing in the cache and `offline` (None: as the
    environment says).
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    repository, _, revision = model.partition("@")
    local = constants.HF_HUB_OFFLINE if offline is None else offline
    try:
        folder = _snapshot(repository, revision, _WANTED, local)
        if not any(folder.rglob("*.safetensors")):
            folder = _snapshot(repository, revision, [*_WANTED, *_PICKLED], local)
    except RepositoryNotFoundError:
        raise WeightsError(
            f"the hub has no model {model!r}, or it asks for a token: check the name, or set HF_TOKEN"
        ) from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if local else "the hub cannot be reached"
        raise WeightsError(
            f"there is no model {model!r} here, nor in the hub's cache, and {why}: give a folder, or fetch it with a network"
        ) from None
    except Exception as error:  # of the hub, of a name that cannot be one, of whichever HTTP client the library has
        raise WeightsError(f"cannot fetch {model!r}: {' '.join(str(error).split())}") from None
    return folder


def _snapshot(repository: str, revision: str, patterns: list[str], local: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=revision or None, local_files_only=local, allow_patterns=patterns))
