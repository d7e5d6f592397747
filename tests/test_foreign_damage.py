"""Foreign files that are hostile, damaged or something else: one line each, and nothing in them is executed."""

import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from foreign_files import CHAIN, Calls, altered, archived, refusal, saved, script
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from unclip.errors import WeightsError
from unclip.weights.foreign import is_script, read_pickle, read_script, read_tensors


@pytest.fixture
def marker(tmp_path):
    """A file that only executed code would make."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


def hostile(marker: Path) -> dict[str, bytes]:
    """What a pickle can ask for, by the name that it must be refused with."""
    touch = f"open({str(marker)!r}, 'w')"
    shell = f"touch {marker}".encode()
    nested = Calls(map, Calls(getattr, Calls(__import__, "os"), "system"), [f"touch {marker}"])
    return {
        f"{os.system.__module__}.system": pickle.dumps(Calls(os.system, f"touch {marker}")),
        "builtins.eval": pickle.dumps({"a": [Calls(eval, touch)]}, protocol=2),
        "builtins.exec": pickle.dumps(Calls(exec, touch), protocol=0),
        "builtins.getattr": CHAIN + b"X" + len(shell).to_bytes(4, "little") + shell + b"\x85R.",
        "builtins.map": pickle.dumps({"x": Calls(list, nested)}),
        "torch.serialization.load": pickle.dumps(Calls(torch.load, str(marker))),
        "os.system": b"(S'" + shell + b"'\nios\nsystem\n.",  # INST
        "posix.popen": b"(cposix\npopen\nS'" + shell + b"'\no.",  # OBJ
        "collections.OrderedDict.__init__": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
        "torch._utils._rebuild_tensor_v2.__globals__": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        "unclip.weights.foreign._ADMITTED": b"\x80\x02cunclip.weights.foreign\n_ADMITTED\n.",
        "torch.load": b"\x80\x02ctorch\nload\n.",
        "torch.nn.parameter.Parameter": b"\x80\x02ctorch.nn.parameter\nParameter\n.",
        "copyreg._reconstructor": b"ccopyreg\n_reconstructor\n.",
        "functools.partial": b"\x80\x02cfunctools\npartial\n)\x81.",
    }


@pytest.mark.parametrize("name", hostile(Path("somewhere")))
def test_what_is_no_tensor_is_refused_by_its_name_and_not_executed(name, marker, tmp_path):
    pickled = hostile(marker)[name]
    for read in (read_pickle, read_tensors):
        path = archived(tmp_path / "hostile.pt", pickled)
        assert f"asks for {name}: only tensors" in refusal(read, path)
    path = archived(tmp_path / "script.pt", pickled, {"constants.pkl": b""})
    assert f"asks for {name}: only tensors" in refusal(read_script, path)
    if pickled[:1] == b"\x80":
        path.write_bytes(pickled)
        assert f"asks for {name}: only tensors" in refusal(read_pickle, path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02\x83\x01\x00.",  # EXT2
        b"\x80\x02\x84\x01\x00\x00\x00.",  # EXT4
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BYTEARRAY8
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x02U\x01a)R.",  # a string is called
        b"\x80\x02ccollections\nOrderedDict\n)R)R.",  # a dict is called
        b"\x80\x02(c__builtin__\ndict\no.",  # OBJ
        b"\x80\x02(i__builtin__\ndict\n.",  # INST
        b"\x80\x02}}b.",  # BUILD on a dict
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\0\0\0__defaults__Nsb.",  # BUILD on a function
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x04\0\0\0makeNs\x86b.",  # and on its slots
        b"\x80\x02ctorch\nFloatStorage\n}X\x08\0\0\0itemsizeK\1sb.",  # BUILD on a type
        b"\x80\x02c_codecs\nencode\nX\1\0\0\0aX\6\0\0\0rot_13\x86R.",
        b"\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ccollections\ndefaultdict\nctorch\nSize\n\x85R.",
        b"\x80\x02X\1\0\0\0aQ.",  # a storage by a string
        b"Pname\n.",
        b"\x80\x02(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuJ\xff\xff\xff\xfftQ.",  # of -1 numbers
        b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",  # a key whose hash would overrun the stack
        b"\x80\x02}" + b"(" * 100_000 + b"t" * 100_000 + b"Ns.",
        b"\x80\x7f.",
        b".",
        b"",
    ],
)
def test_what_a_pickle_may_not_do_is_one_line(pickled, tmp_path):
    refusal(read_pickle, archived(tmp_path / "hostile.pt", pickled))


def test_a_place_in_the_memo_costs_nothing(tmp_path):
    assert read_pickle(archived(tmp_path / "a.pt", b"\x80\x02}r\xff\xff\xff\xff.")) == {}


def test_records_that_do_not_hold_the_tensors_are_named(tmp_path):
    source = saved(tmp_path / "a.pt", {"a": torch.arange(64), "b": torch.ones(3)})
    path = tmp_path / "b.pt"
    assert torch.equal(read_tensors(altered(source, path, {}))["a"], torch.arange(64))
    refusal(read_tensors, altered(source, path, {}, method=zipfile.ZIP_DEFLATED), "byteorder is compressed")
    refusal(read_tensors, altered(source, path, {"byteorder": None}, method=zipfile.ZIP_DEFLATED), "data/0 is compressed")
    refusal(read_tensors, altered(source, path, {"byteorder": b"big"}), "big-endian")
    refusal(read_tensors, altered(source, path, {"data/1": None}), "data/1 is missing")
    refusal(read_tensors, altered(source, path, {"data/0": bytes(511)}), "storage 0 has 511 bytes, expected 512")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ((0, (2, 3), (3, 1)), None),
        ((0, (2, 3), (4, 1)), "storage 0 holds 6 numbers, a tensor of .2, 3. needs 7"),
        ((1, (2, 3), (3, 1)), "needs 7"),
        ((0, (2**40,), (0,)), None),
        ((0, (2**62,), (2**62,)), "needs"),
        ((-1, (1,), (1,)), "offset -1"),
        ((0, (2,), (-1,)), "the stride .-1"),
        ((0, (-2,), (1,)), "the size .-2"),
        ((0, (2,), (1, 1)), "the size"),
        ((0, (True,), (1,)), "the size"),
        ((0, (0, 2**62, 2**62), (1, 1, 1)), "torn or of another kind"),
        ((9, (), ()), "needs 10"),
    ],
)
def test_a_view_stays_inside_its_storage(view, words, tmp_path):
    offset, size, stride = view
    stored = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\x06tQ"
    numbers = b"".join(pickle.dumps(part, protocol=2)[2:-1] for part in (offset, size, stride))
    pickled = b"\x80\x02}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(" + stored + numbers + b"\x89NtRs."
    path = archived(tmp_path / "a.pt", pickled, {"data/0": bytes(24)})
    if words is None:
        assert read_tensors(path)["a"].shape == size
    else:
        refusal(read_tensors, path, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"hello", "neither a safetensors"),
        (b"PK\x03\x04", "torn or of another kind"),
        (b"\x80\x02K\x05.", "a pickle that torch did not save"),
        (b"\x80\x02", "torn or of another kind"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'}", "neither a safetensors"),
    ],
)
def test_what_is_no_weights_is_one_line(content, words, tmp_path):
    for path in (tmp_path / "a.bin", tmp_path / "a.safetensors"):
        if content is not None:
            path.write_bytes(content)
        refusal(read_pickle, path, words)
        refusal(read_tensors, path, words if path.suffix == ".bin" else None)
    refusal(read_pickle, tmp_path)


def test_a_zip_of_something_else_is_one_line(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mydata.pkl", b"")
    for read in (read_pickle, read_tensors, read_script, is_script):
        refusal(read, path, "without a data.pkl")


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([torch.ones(1)], "holds a list"),
        ({"state_dict": {"a": torch.ones(1)}}, "a dict at 'state_dict'"),
        ({1: torch.ones(1)}, "a Tensor at 1"),
        (torch.ones(1), "holds a Tensor"),
    ],
)
def test_what_is_no_flat_mapping_is_not_tensors(held, words, tmp_path):
    refusal(read_tensors, saved(tmp_path / "a.pt", held), words)


def test_a_stream_of_a_big_endian_machine_is_refused(tmp_path):
    path = saved(tmp_path / "a.pt", {"a": torch.ones(1)}, legacy=True)
    content = path.read_bytes()
    at = content.index(b"little_endian") + len(b"little_endian") + 2
    assert content[at : at + 1] == b"\x88"
    path.write_bytes(content[:at] + b"\x89" + content[at + 1 :])
    refusal(read_pickle, path, "big-endian")


def made(kind: str, path: Path) -> bytes:
    held = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.ones(2).bfloat16(), "c": torch.tensor(True)}
    if kind == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in held.items()}, path)
    elif kind == "script":
        script(path)
    else:
        saved(path, held, legacy=kind == "stream")
    return path.read_bytes()


READERS = {"safetensors": read_tensors, "zip": read_tensors, "stream": read_tensors, "script": read_script}


@pytest.mark.parametrize("kind", READERS)
def test_no_part_of_a_file_is_taken_for_the_whole(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    content = made(kind, path)
    assert READERS[kind](path)

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, len(content) - 1))
    def cut_at(length):
        path.write_bytes(content[:length])
        refusal(READERS[kind], path)

    cut_at()


@pytest.mark.parametrize("kind", READERS)
def test_damage_is_a_weights_error_or_harmless(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    content = made(kind, path)

    @settings(max_examples=250, deadline=None)
    @given(st.dictionaries(st.integers(0, len(content) - 1), st.integers(0, 255), min_size=1, max_size=6))
    def damaged(bytes_at):
        torn = bytearray(content)
        for place, byte in bytes_at.items():
            torn[place] = byte
        path.write_bytes(torn)
        unharmed_or_refused(READERS[kind], path)

    damaged()


def test_damage_to_the_pickle_is_a_weights_error_or_harmless(tmp_path):
    source, path = tmp_path / "a.pt", tmp_path / "b.pt"
    made("zip", source)
    with zipfile.ZipFile(source) as archive:
        pickled = archive.read("a/data.pkl")

    @settings(max_examples=600, deadline=None)
    @given(st.integers(0, 2**32), st.integers(1, 8))
    def damaged(seed, count):
        draw, torn = random.Random(seed), bytearray(pickled)
        for _ in range(count):
            torn[draw.randrange(len(torn))] = draw.randrange(256)
        unharmed_or_refused(read_pickle, altered(source, path, {"data.pkl": bytes(torn)}))

    damaged()


def unharmed_or_refused(read, path: Path) -> None:
    fault = ""
    try:
        read(path)
    except WeightsError as error:
        fault = str(error)
    assert "\n" not in fault
