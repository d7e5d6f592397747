"""Files that others published: every tensor comes out as torch saved it."""

import json
import os
from collections import OrderedDict, defaultdict

import pytest
import torch
from foreign_files import CHAIN, Calls, archived, refusal, saved, script
from safetensors.torch import save_file
from torch import nn

from unclip.errors import WeightsError
from unclip.weights.foreign import Inert, is_script, read_pickle, read_script, read_tensors

KINDS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
KINDS += [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool]


def drawn() -> dict[str, torch.Tensor]:
    """Tensors of every kind and shape that matters."""
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(6, 8, generator=generator)
    tensors = {str(kind): torch.randint(0, 2, (3, 5), generator=generator).to(kind) for kind in KINDS}
    tensors |= {"whole": base, "transposed": base.T, "slice": base[1:5:2, 3], "same": base.view(48)}
    tensors |= {"row": base[2].expand(4, 8), "scalar": torch.tensor(2.5), "yes": torch.tensor(True)}
    tensors |= {"none": torch.zeros(0), "none wide": torch.zeros(3, 0, 2), "half none": torch.zeros(0, 2).half()}
    return tensors | {"parameter": nn.Parameter(torch.randn(2, 2, generator=generator))}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "stream"])
def test_every_tensor_is_as_torch_saved_it(legacy, tmp_path):
    path = saved(tmp_path / "model.pt", drawn(), legacy=legacy)
    ours, theirs = read_tensors(path), torch.load(path, weights_only=True)
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor.detach())
        assert tensor.numel() == 0 or ours[name].stride() == tensor.stride()
        assert not ours[name].requires_grad
    ours["whole"][0, 0] = 7
    assert ours["transposed"][0, 0] == ours["same"][0] == 7  # they share one storage, as they did
    assert torch.equal(read_tensors(path)["whole"], theirs["whole"])  # which is not the file's


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(protocol, tmp_path):
    held = {
        "weights": drawn(),
        "step": 3,
        "name": "é",
        "raw": b"\0\xff",
        "empty": b"",
        "pair": (1.5, None, True, [-(2**70)]),
    }
    held |= {"set": {1, 2}, "frozen": frozenset({"a"}), "size": torch.Size([2, 3]), "kind": torch.bfloat16}
    held |= {"device": torch.device("cpu"), "counts": defaultdict(list, a=[1])}
    torch.save(held, tmp_path / "a.ckpt", pickle_protocol=protocol)
    ours = read_pickle(tmp_path / "a.ckpt")
    weights = ours.pop("weights")
    assert all(torch.equal(weights[name], tensor) for name, tensor in held.pop("weights").items())
    assert ours == held
    assert type(ours["size"]) is torch.Size
    assert type(ours["counts"]) is dict


def test_a_modules_state_and_its_optimizers_are_read(tmp_path):
    layer = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    path = saved(tmp_path / "a.pth", {"model": layer.state_dict(), "optimizer": optimizer.state_dict()})
    read = read_pickle(path)
    assert isinstance(read["model"], OrderedDict)
    layer.load_state_dict(read["model"])
    optimizer.load_state_dict(read["optimizer"])


def test_tensors_are_mapped_not_read(tmp_path):
    one, other = torch.randn(100), torch.randn(50)
    path = saved(tmp_path / "a.pt", {"one": one, "other": other})
    content, read = path.read_bytes(), read_tensors(path)
    places = [content.index(tensor.numpy().tobytes()) for tensor in (one, other)]
    assert read["other"].data_ptr() - read["one"].data_ptr() == places[1] - places[0]


def test_safetensors_by_name_by_content_and_in_shards(tmp_path):
    one, other = {"a": torch.randn(2, 3), "b": torch.arange(4)}, {"c": torch.ones(1).bfloat16(), "spare": torch.ones(1)}
    for name in ("1.safetensors", "blob"):
        save_file(one, tmp_path / name)
        assert all(torch.equal(tensor, one[key]) for key, tensor in read_tensors(tmp_path / name).items())
    save_file(other, tmp_path / "2.safetensors")
    saved(tmp_path / "3.bin", {"d": torch.ones(2)})
    index = tmp_path / "model.safetensors.index.json"
    places = {"a": "1.safetensors", "c": "2.safetensors", "b": "1.safetensors", "d": "3.bin"}
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    read = read_tensors(str(index))
    assert set(read) == {"a", "b", "c", "d"}
    assert torch.equal(read["c"], other["c"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "no index"),
        ("[1]", "no index"),
        ('{"weight_map": {"a": 1}}', "names the file 1"),
        ("<" * 3, "no index"),
        ('{"weight_map": {"a": "../1.safetensors"}}', "expected one beside it"),
        ('{"weight_map": {"x": "1.safetensors"}}', "says that x is in 1.safetensors"),
        ('{"weight_map": {"a": "2.safetensors"}}', "No such file"),
        ('{"weight_map": {"a": ""}}', "expected one beside it"),
    ],
)
def test_an_index_that_does_not_hold_is_one_line(text, words, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "1.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=words) as error:
        read_tensors(index)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("traced", [False, True], ids=["script", "trace"])
def test_a_torchscript_archive_gives_its_state(traced, tmp_path):
    tower = script(tmp_path / "clip.pt", traced=traced)
    read, state = read_script(tmp_path / "clip.pt"), tower.state_dict()
    assert set(read) == set(state)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())
    assert is_script(tmp_path / "clip.pt")
    refusal(read_tensors, tmp_path / "clip.pt", "is a TorchScript archive")
    refusal(read_pickle, tmp_path / "clip.pt", "asks for __torch__.")


def test_what_is_no_script_is_not_taken_for_one(tmp_path):
    saved(tmp_path / "a.pt", {"a": torch.ones(1)})
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        assert not is_script(tmp_path / name)
        refusal(read_script, tmp_path / name, "not a TorchScript archive")
    for pickled in (b"\x80\x02}.", b"\x80\x02c__torch__\nA\n)\x81}(X\1\0\0\0xc__torch__\nA\n)\x81q\0}(h\0h\0ubub."):
        archived(tmp_path / "made up.pt", pickled, {"constants.pkl": b""})
        refusal(read_script, tmp_path / "made up.pt")


def test_a_state_dicts_attributes_stay_out(tmp_path):
    held = OrderedDict(a=torch.ones(1))
    held._metadata, held.update = {"version": 1}, "shadowed"
    read = read_tensors(saved(tmp_path / "a.pt", held))
    assert torch.equal(read["a"], held["a"])
    assert vars(read_pickle(tmp_path / "a.pt")) == {}


class Schedule(dict):
    """A class that a training run would leave in its checkpoints."""

    def __init__(self, base):
        self.base = base


class Sequence(list):
    pass


class Numbers(set):
    def __reduce_ex__(self, protocol):
        return Numbers, ([1],), {"a": 1}


@pytest.mark.parametrize("protocol", [2, 4])
def test_named_classes_are_inert(protocol, tmp_path):
    marker = tmp_path / "executed"
    schedule = Schedule(0.1)
    schedule["step"] = torch.ones(2)
    held = {"schedule": schedule, "list": Sequence([1, 2]), "set": Numbers(), "call": Calls(os.system, f"touch {marker}")}
    held |= {"class": Schedule, "weights": torch.arange(3)}
    torch.save(held, tmp_path / "a.ckpt", pickle_protocol=protocol)
    refusal(read_pickle, tmp_path / "a.ckpt", f"asks for {__name__}.Schedule")
    names = [f"{__name__}.{kind}" for kind in ("Schedule", "Sequence", "Numbers")]
    read = read_pickle(tmp_path / "a.ckpt", inert=frozenset([*names, f"{os.system.__module__}.system"]))
    assert torch.equal(read.pop("weights"), held["weights"])
    assert all(isinstance(value, Inert) for value in read.values())
    assert repr(read["schedule"]) == f"<inert {__name__}.Schedule>"
    assert read["schedule"].state == {"base": 0.1}
    assert repr(read["call"]) == f"<inert {os.system.__module__}.system>"
    refusal(read_tensors, tmp_path / "a.ckpt", "asks for")
    path = archived(tmp_path / "b.ckpt", CHAIN + b"X\1\0\0\0a\x85R.")
    called = read_pickle(path, inert=frozenset(["builtins.getattr", "builtins.__import__"]))
    assert repr(called) == "<inert builtins.getattr>"
    assert not marker.exists()
