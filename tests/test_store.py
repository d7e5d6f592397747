"""Bundles: what is saved comes back, and every way to be wrong is one line that names it."""

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from unclip.errors import WeightsError
from unclip.weights import store
from unclip.weights.store import (
    Part,
    build,
    fill,
    find_bundle,
    load_part,
    read_manifest,
    read_tokenizer,
    save_bundle,
    verify_bundle,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(4, dtype=torch.int64))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    module = Net()
    module.count += 7
    return module


def save(folder: Path, module: nn.Module | None = None, **changes) -> Path:
    part = Part(kind="net", config={"width": 3}, state=(module or net()).state_dict())
    settings = {"name": "tiny", "version": "1", "tokenizer_json": "{}", "card": "# tiny", "provenance": {"seed": 0}}
    return save_bundle(folder, {"main": part}, **(settings | changes))


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_round_trip_in_bf16_is_the_rounded_weights(tmp_path):
    module = net()
    folder = save(tmp_path / "tiny", module)
    config, state = load_part(folder, "main", verify=True)
    assert config == {"width": 3}
    assert state["proj.weight"].dtype == torch.bfloat16
    filled = build(Net, state, where="main")
    assert filled.proj.weight.dtype == torch.float32
    assert filled.proj.weight.requires_grad
    assert torch.equal(filled.proj.weight, module.proj.weight.bfloat16().float())
    assert torch.equal(filled.count, module.count)


def test_round_trip_in_fp32_is_exact(tmp_path):
    module = net()
    _, state = load_part(save(tmp_path / "tiny", module, dtype=torch.float32), "main")
    filled = build(Net, state, where="main")
    assert all(torch.equal(a, b) for a, b in zip(module.state_dict().values(), filled.state_dict().values(), strict=True))


def test_the_manifest_counts_and_the_card_and_tokenizer_lie_beside(tmp_path):
    folder = save(tmp_path / "tiny", tokenizer_json='{"a": "é"}')
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.version, manifest.provenance) == ("tiny", "1", {"seed": 0})
    assert manifest.parts["main"].parameters == 3 * 2 + 2 + 4
    assert manifest.size == sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "unclip.json"
    )
    assert read_tokenizer(folder) == '{"a": "é"}'
    assert (folder / "README.md").read_text() == "# tiny"
    verify_bundle(folder)


def test_a_part_past_the_limit_is_split_and_comes_back_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGEST_FILE", 20)
    module = net()
    folder = save(tmp_path / "tiny", module)
    names = sorted(path.name for path in (folder / "main").glob("*.safetensors"))
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    _, state = load_part(folder, "main")
    assert state.keys() == module.state_dict().keys()


def test_tied_weights_are_saved(tmp_path):
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    _, state = load_part(save(tmp_path / "tiny", module), "main")
    assert torch.equal(state["0.weight"], state["1.weight"])


def test_saving_again_replaces_the_bundle_and_leaves_nothing_else(tmp_path):
    save(tmp_path / "tiny", net(0))
    save(tmp_path / "tiny", net(1), dtype=torch.float32)
    _, state = load_part(tmp_path / "tiny", "main")
    assert torch.equal(state["proj.weight"], net(1).proj.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(WeightsError, match="is not a bundle"):
        save(tmp_path / "photos")
    assert (tmp_path / "photos").is_dir()


def test_a_full_disk_keeps_the_old_bundle_and_says_so(tmp_path, monkeypatch):
    folder = save(tmp_path / "tiny", net(0), dtype=torch.float32)

    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WeightsError, match="No space left on device") as error:
        save(folder, net(1))
    assert str(folder) in one_line(error)
    verify_bundle(folder)
    assert torch.equal(load_part(folder, "main")[1]["proj.weight"], net(0).proj.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("proj.bias"), "decoder: the tensor proj.bias is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "decoder: the tensor extra has no place in this network"),
        (
            lambda state: state.update({"proj.bias": torch.zeros(5)}),
            r"proj.bias is float32 \(5,\), the network expects float32 \(2,\)",
        ),
        (lambda state: state.update(count=torch.zeros(4)), r"count is float32 \(4,\), the network expects int64 \(4,\)"),
    ],
    ids=["missing", "surplus", "shape", "kind"],
)
def test_a_state_that_does_not_fit_names_the_tensor(change, words):
    state = net().state_dict()
    change(state)
    with pytest.raises(WeightsError, match=words) as error:
        fill(Net(), state, where="decoder")
    one_line(error)


def test_many_missing_tensors_are_counted():
    with pytest.raises(WeightsError, match=r"count is missing \(and 2 more\)"):
        fill(Net(), {}, where="decoder")


def test_a_buffer_left_on_meta_is_our_own_mistake():
    class Forgetful(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(2), persistent=False)

    with pytest.raises(AssertionError, match="the buffer table is not in the state dict"):
        build(Forgetful, net().state_dict(), where="decoder")


def test_a_truncated_file_is_named(tmp_path):
    path = save(tmp_path / "tiny") / "main" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(WeightsError, match="the file is torn") as error:
        load_part(tmp_path / "tiny", "main")
    assert str(path) in one_line(error)


@pytest.mark.parametrize("fill_byte", [b"\x00", b"\xff", b"PK"], ids=["zeros", "ones", "zip"])
def test_a_foreign_file_of_the_right_size_is_named(tmp_path, fill_byte):
    path = save(tmp_path / "tiny") / "main" / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes((fill_byte * size)[:size])
    with pytest.raises(WeightsError, match="not a whole safetensors file") as error:
        load_part(tmp_path / "tiny", "main")
    assert str(path) in one_line(error)


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path):
    folder = save(tmp_path / "tiny")
    path = folder / "main" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_part(folder, "main")  # not looked for unless asked
    with pytest.raises(WeightsError, match="sha256") as error:
        verify_bundle(folder)
    one_line(error)


def test_a_missing_file_a_missing_part_and_a_missing_manifest_are_named(tmp_path):
    folder = save(tmp_path / "tiny")
    with pytest.raises(WeightsError, match="has no part 'prior': it has main"):
        load_part(folder, "prior")
    (folder / "main" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*config.json: No such file"):
        load_part(folder, "main")
    (folder / "unclip.json").unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*unclip.json: No such file"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format = 2"),
        ({"surprise": 1}, "unknown key surprise"),
        ({"parts": {"../main": {"kind": "net", "parameters": 1, "files": {}}}}, "parts"),
        ({"files": {"../../secret": {"bytes": 1, "sha256": ""}}}, "files"),
    ],
    ids=["format", "key", "part outside", "file outside"],
)
def test_a_foreign_manifest_is_refused(tmp_path, change, words):
    path = save(tmp_path / "tiny") / "unclip.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=words) as error:
        read_manifest(tmp_path / "tiny")
    one_line(error)


@pytest.mark.parametrize("text", ["", "not json", "[1]", "\ud800"], ids=["empty", "prose", "list", "bytes"])
def test_a_manifest_that_is_no_object_is_refused(tmp_path, text):
    path = save(tmp_path / "tiny") / "unclip.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(WeightsError, match=r"unclip\.json") as error:
        read_manifest(tmp_path / "tiny")
    one_line(error)


def test_bundles_are_found_by_name_or_path_and_the_unknown_lists_what_there_is(tmp_path, monkeypatch):
    shipped = tmp_path / "bundles"
    monkeypatch.setattr(store, "shipped_folder", lambda: shipped)
    with pytest.raises(WeightsError, match="none is shipped"):
        find_bundle("icons")
    save(shipped / "icons")
    save(shipped / "birds")
    elsewhere = save(tmp_path / "mine")
    assert find_bundle("icons") == shipped / "icons"
    assert find_bundle(elsewhere) == elsewhere
    with pytest.raises(WeightsError, match=r"no model 'icon' \(shipped: birds, icons\)") as error:
        find_bundle("icon")
    one_line(error)
    with pytest.raises(WeightsError, match="is not a bundle"):
        find_bundle(tmp_path)


def test_every_shipped_bundle_is_as_it_was_saved_and_small_enough():
    for name in store.shipped_bundles():
        folder = find_bundle(name)
        verify_bundle(folder)
        assert read_manifest(folder).size <= 80e6
        assert max(entry.stat().st_size for entry in folder.rglob("*")) <= 50e6
