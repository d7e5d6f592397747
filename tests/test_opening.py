"""From what is written after --model to a model: names, folders, files, the hub's cache; and what is fetched from it."""

import fnmatch
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import toy_karlo
from huggingface_hub.errors import RepositoryNotFoundError

from unclip.cli import main
from unclip.errors import WeightsError
from unclip.weights import opening, store
from unclip.weights.opening import cached, open_model, pull

COMMIT, OLDER = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    hub = tmp_path_factory.mktemp("hub")
    return toy_karlo.save(toy_karlo.text_to_image(hub / "words"), hub / "karlo")


@pytest.fixture
def cache(tmp_path, monkeypatch, folder) -> Path:
    """The hub's cache with two revisions of org/karlo, and no way to the hub."""
    cache = tmp_path / "cache"
    repository = cache / "models--org--karlo"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "refs" / "v1").write_text(OLDER)
    for commit in (COMMIT, OLDER):
        shutil.copytree(folder, repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def refusal(model: str | Path) -> str:
    with pytest.raises(WeightsError) as error:
        open_model(model)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_shipped_name_is_the_bundle_in_the_package_whatever_lies_here(monkeypatch, tmp_path, micro_bundle):
    shutil.copytree(micro_bundle, tmp_path / "shipped" / "icons")
    monkeypatch.setattr(store, "shipped_folder", lambda: tmp_path / "shipped")
    (tmp_path / "icons").mkdir()
    monkeypatch.chdir(tmp_path)
    source = open_model("icons")
    assert source.where == str(tmp_path / "shipped" / "icons")
    assert (source.name, next(iter(source.networks)), source.card) == ("tiny", "clip", "# tiny")


def test_a_folder_is_a_bundle_or_somebody_elses(micro_bundle, folder):
    assert open_model(micro_bundle).name == "tiny"
    source = open_model(folder)
    assert (source.name, source.where) == ("karlo", str(folder))
    assert list(source.networks) == ["clip", "prior", "decoder", "upsampler_64", "upsampler_64_last"]


def test_nothing_is_read_of_the_weights_before_a_part_is(folder, tmp_path):
    bare = shutil.copytree(folder, tmp_path / "karlo", ignore=shutil.ignore_patterns("*.safetensors"))
    source = open_model(bare)
    with pytest.raises(
        WeightsError, match=r"prior holds no weights: expected diffusion_pytorch_model\.safetensors or model"
    ):
        source.networks["prior"].read()


def test_what_is_no_model_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "_snapshot", lambda *_: pytest.fail("the hub was asked"))
    assert (
        refusal(tmp_path)
        == f"{tmp_path} is no model that we know: it has neither model_index.json nor a bundle's unclip.json"
    )
    for name in ("nobody", "../nobody", "./models/nobody", str(tmp_path / "nobody")):
        assert refusal(name).startswith(f"there is no model {name!r} (shipped: icons")


def test_a_repository_in_the_cache_is_a_folder(cache, folder):
    assert cached("org/karlo")
    assert not cached("org/other")
    source = open_model("org/karlo")
    assert (source.name, source.where) == ("org/karlo", str(cache / "models--org--karlo" / "snapshots" / COMMIT))
    assert source.provenance == {"published as": "UnCLIPPipeline", "from": "org/karlo"}


@pytest.mark.parametrize("revision", ["v1", OLDER])
def test_a_revision_stands_behind_an_at_sign(cache, revision):
    source = open_model(f"org/karlo@{revision}")
    assert (source.name, Path(source.where).name) == (f"org/karlo@{revision}", OLDER)


@pytest.mark.parametrize("model", ["org/other", "org/karlo@v9"])
def test_without_a_network_what_is_not_in_the_cache_is_one_line(cache, model):
    expected = "nor in the hub's cache, and HF_HUB_OFFLINE is set: give a folder, or fetch it with a network"
    assert refusal(model) == f"there is no model {model!r} here, {expected}"


def test_a_folder_of_that_name_goes_before_the_hub(cache, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "org" / "karlo")
    monkeypatch.chdir(tmp_path)
    assert open_model("org/karlo").where == "org/karlo"


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """A hub with one repository of some files, and what was asked of it: (revision, patterns)."""
    calls = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def snapshot_download(repository, *, revision, local_files_only, allow_patterns):
        assert not local_files_only
        calls.append((revision, allow_patterns))
        snapshot = tmp_path / "snapshot"
        for file in (tmp_path / "hub" / repository).rglob("*.*"):
            if any(fnmatch.fnmatch(str(file.relative_to(tmp_path / "hub" / repository)), p) for p in allow_patterns):
                target = snapshot / file.relative_to(tmp_path / "hub" / repository)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def fetched(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.*")}


def test_pickles_are_not_fetched_where_there_are_safetensors(asked, tmp_path):
    kept = {"model_index.json", "prior/model.safetensors", "tokenizer/merges.txt"}
    put(
        tmp_path / "hub" / "org" / "karlo",
        *kept,
        "prior/pytorch_model.bin",
        "flax_model.msgpack",
        "assets/sample.png",
        "x.ckpt",
    )
    assert fetched(pull("org/karlo@v1")) == kept
    assert [revision for revision, _ in asked] == ["v1"]


def test_pickles_are_fetched_where_there_is_nothing_else(asked, tmp_path):
    kept = {"prior-ckpt-step=1.ckpt", "ViT-L-14_stats.th", "ViT-L-14.pt", "bpe_simple_vocab_16e6.txt.gz", "a/model.bin"}
    put(tmp_path / "hub" / "org" / "karlo", *kept, "sample.png", "events.tfevents")
    assert fetched(pull("org/karlo")) == kept
    assert [revision for revision, _ in asked] == [None, None]


def test_a_repository_without_weights_is_no_model(asked, tmp_path):
    put(tmp_path / "hub" / "org" / "words", "README.md")
    assert "is no model that we know" in refusal("org/words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError.__new__(RepositoryNotFoundError), "the hub has no model 'org/x', or it asks for a token"),
        (ConnectionError("no route\nto host"), "cannot fetch 'org/x': no route to host"),
        (RuntimeError("the server\nhung up"), "cannot fetch 'org/x': the server hung up"),
    ],
)
def test_what_the_hub_refuses_is_one_line(monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert refusal("org/x").startswith(words)


def test_a_name_that_no_repository_can_have_is_one_line(cache, capsys):
    assert main(["models", "pull", "a/b/c"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: cannot fetch 'a/b/c': ")
    assert err.count("\n") == 1


def test_the_verb_prints_the_folder_of_what_it_pulled(cache, capsys):
    assert main(["models", "pull", "org/karlo"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(cache / "models--org--karlo" / "snapshots" / COMMIT)]
    assert os.path.isdir(printed[0])
