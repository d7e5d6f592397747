"""What stands at a path is whole: the new, or the one before."""

import contextlib
import os

import pytest

from unclip.files import (
    locked,
    remove_folder,
    remove_leftovers,
    replacing,
    replacing_folder,
    write_bytes,
    write_text,
)


class Crash(BaseException):
    pass


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one é")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with contextlib.suppress(Crash), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise Crash
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_new_name_appears_after_the_bytes_are_on_the_disk(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write_text(tmp_path / "a", "text")
    assert calls == ["fsync", "rename", "fsync"]  # the bytes, the name, the folder that holds the name
    calls.clear()
    with replacing_folder(tmp_path / "b") as temporary:
        (temporary / "one").write_text("1")
        (temporary / "two").write_text("2")
    assert calls == ["fsync", "fsync", "fsync", "rename", "fsync"]


def test_a_folder_takes_the_place_of_another_whole(tmp_path):
    path = tmp_path / "a"
    for text in ("old", "new"):
        with replacing_folder(path) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / text).write_text(text)
            assert not (path / "inner" / text).exists()
    assert [entry.name for entry in path.rglob("*")] == ["inner", "new"]
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("at", range(6))
def test_a_folder_survives_an_error_at_every_call(tmp_path, monkeypatch, at):
    path = tmp_path / "a"
    with replacing_folder(path) as temporary:
        (temporary / "file").write_text("old")
    calls = 0
    fsync, replace = os.fsync, os.replace

    def failing(call):
        def wrapper(*arguments):
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(28, "No space left on device")
            call(*arguments)

        return wrapper

    monkeypatch.setattr(os, "fsync", failing(fsync))
    monkeypatch.setattr(os, "replace", failing(replace))
    with contextlib.suppress(OSError), replacing_folder(path) as temporary:
        (temporary / "file").write_text("new")
    monkeypatch.undo()
    # Calls: file, folder, old aside, new in place, parent. The name has changed hands by the last one.
    assert (path / "file").read_text() == ("old" if at < 4 else "new")
    assert calls >= min(at + 1, 5)


def test_what_a_kill_left_behind_is_removed_and_nothing_else(tmp_path):
    (tmp_path / ".a.123.tmp").mkdir()
    (tmp_path / ".a.123.tmp" / "half").write_text("")
    (tmp_path / ".b.99.old").write_text("")
    (tmp_path / ".lock").write_text("")
    (tmp_path / "kept.tmp").write_text("")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "kept.tmp"]


def test_a_removed_folder_is_gone(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    remove_folder(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_a_lock_holds_until_it_is_let_go(tmp_path):
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock"):
        pass
    with locked(tmp_path / "lock"):
        pass


def test_a_full_device_is_the_systems_error(tmp_path):
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        (tmp_path / "full").write_text("x")
