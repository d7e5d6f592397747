"""What a server remembers: jobs in their order, pictures once each, whatever is killed, full, or asked for by a stranger."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from unclip.errors import ConfigError, RequestError
from unclip.server import store as stores
from unclip.server.jobs import ERRORS, Job, JobRequest, JobState, why
from unclip.server.schema import STEPS
from unclip.server.store import Store


def png(colour=(1, 2, 3), size=(8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def asked(**changes) -> JobRequest:
    return JobRequest.model_validate({"task": "generate", "prompt": "a cat", "n": 2} | changes)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "data")
    yield made
    made.close()


def known(job: Job | None) -> Job:
    assert job is not None
    return job


def test_a_job_comes_back_as_it_was_asked_for(store):
    request = asked(prompt="a cat \0 with 'quotes' 🐈", steps=7, guidance=2.5, size=256, seed=5)
    job = store.add_job("me", request)
    assert store.job(job.id) == job
    assert (job.request, job.owner, job.state, job.images, job.attempts) == (request, "me", JobState.QUEUED, (None, None), 0)
    assert store.job("nobody's") is None


def test_a_seed_is_drawn_once_and_kept(store):
    jobs = [store.add_job("me", asked()) for _ in range(3)]
    assert len({job.request.seed for job in jobs}) == 3
    assert known(store.job(jobs[0].id)).request.seed == jobs[0].request.seed


def test_jobs_are_claimed_in_their_order_and_each_once(store):
    ids = [store.add_job("me", asked()).id for _ in range(8)]
    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(lambda _: store.claim(), range(9)))
    assert sorted(ids) == sorted(job.id for job in claimed if job)
    assert claimed.count(None) == 1
    assert {job.state for job in claimed if job} == {JobState.RUNNING}
    assert [store.claim(), store.in_state(JobState.RUNNING)] == [None, ids]


def test_a_queue_is_moved_within_its_owners_places(store):
    a, yours, b, c = (store.add_job(owner, asked()).id for owner in ("me", "you", "me", "me"))
    assert store.move(c, a)
    assert store.in_state(JobState.QUEUED) == [c, yours, a, b]
    assert store.move(c, None)
    assert store.move(b, b)
    assert store.in_state(JobState.QUEUED) == [a, yours, b, c]
    for id, before in ((a, yours), (a, "gone"), ("gone", None)):
        assert not store.move(id, before)
    assert known(store.claim()).id == a
    assert not store.move(b, a)
    assert store.move(c, b)
    store.release(a)
    assert store.in_state(JobState.QUEUED) == [a, yours, c, b]


def test_a_dropped_slot_takes_no_picture_and_a_painted_one_is_not_dropped(store):
    job = store.add_job("me", asked(n=3))
    assert store.drop_slot(job.id, 1)
    assert not store.drop_slot(job.id, 1)
    assert store.finish_slot(job.id, 1, png(), {}) == (None, None)
    image, _ = store.finish_slot(job.id, 0, png(), {})
    assert not store.drop_slot(job.id, 0)
    assert not store.drop_slot("gone", 0)
    now = known(store.job(job.id))
    assert (now.images, now.dropped, store.slots_done(job.id)) == ((image, None, None), (1,), {0, 1})
    assert len(files(store)) == 1


def test_the_last_picture_ends_its_job_and_a_last_drop_is_found_at_the_start(store):
    painted, mixed, dropped = (known(store.add_job("me", asked()) and store.claim()).id for _ in range(3))
    assert store.finish_slot(painted, 1, png(), {})[1] is None
    _, ended = store.finish_slot(painted, 0, png(), {})
    assert ended == store.update(painted, state=JobState.CANCELLED) == store.job(painted)
    assert (ended.state, ended.progress, None in ended.images) == (JobState.DONE, 1.0, False)
    store.finish_slot(mixed, 1, png(), {})
    assert [store.drop_slot(*slot) for slot in ((mixed, 0), (dropped, 0), (dropped, 1))]
    assert [job.state for job in store.recover()] == [JobState.DONE, JobState.CANCELLED]


def test_history_is_paged_newest_first_and_an_owners_own(store):
    mine = [store.add_job("me", asked()).id for _ in range(5)]
    other = store.add_job("you", asked()).id
    assert [job.id for job in store.jobs("me", limit=2)] == mine[:2:-1]
    assert [job.id for job in store.jobs("me", before=mine[3], limit=2)] == mine[2:0:-1]
    assert [job.id for job in store.jobs("you")] == [other]
    assert store.jobs("me", before="gone") == []


def test_what_has_ended_stays_as_it_ended(store):
    job = store.add_job("me", asked())
    failed = known(store.update(job.id, state=JobState.FAILED, error="internal", progress=0.5))
    assert (failed.state, failed.error, failed.progress) == (JobState.FAILED, "internal", 0.5)
    assert failed.finished is not None
    assert store.update(job.id, state=JobState.DONE, progress=1.0) == failed
    refused = known(store.update(store.add_job("me", asked()).id, state=JobState.FAILED, error="refused", detail="no ears"))
    assert (refused.detail, why(refused.error, refused.detail)) == (
        "no ears",
        "The model cannot serve this request: no ears.",
    )
    assert store.update("gone", progress=1.0) is None


def test_a_slot_takes_one_picture(store):
    parent = store.add_image("me", png())
    job = store.add_job("me", asked(task="variations", prompt=None, images=(parent,)))
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda i: store.finish_slot(job.id, 1, png((i, 0, 0)), {"seed": 3})[0], range(6)))
    (image,) = [id for id in ids if id]
    row = store.image(image)
    assert row is not None
    assert (row.owner, row.kind, row.job, row.slot, row.width, row.height) == ("me", "made", job.id, 1, 8, 6)
    assert (row.parents, row.settings) == ((parent,), {"seed": 3})
    assert known(store.job(job.id)).images == (None, image)
    assert store.slots_done(job.id) == {1}
    assert len(files(store)) == 2  # no second picture is left behind
    assert store.finish_slot("gone", 0, png(), {}) == (None, None)


def files(store: Store) -> list[Path]:
    return sorted(path for path in (store.data / "images").rglob("*") if path.is_file())


def test_a_deleted_picture_is_gone_everywhere_and_is_not_painted_again(store):
    job = store.add_job("me", asked())
    image, _ = store.finish_slot(job.id, 0, png(), {})
    path = store.path(image)
    assert path.read_bytes() == png()
    shelf = store.create_collection("me", "best")
    assert store.add_to_collection(shelf.id, image)
    assert store.delete_image(image)
    assert not store.delete_image(image)
    assert [store.image(image), store.path(image), path.exists()] == [None, None, False]
    assert known(store.job(job.id)).images == (None, None)
    assert store.slots_done(job.id) == {0}
    assert store.collection(shelf.id).images == ()


def test_a_path_is_never_made_of_what_somebody_says(store, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    for id in ("../../../secret", "/etc/passwd", "..", "", "a\0b", "%2e%2e/secret"):
        assert store.path(id) is None
        assert not store.delete_image(id)
    assert (tmp_path / "secret.png").exists()


@pytest.mark.parametrize("content", [b"", b"GIF89a" + b"\0" * 40, png()[:20]], ids=["nothing", "gif", "cut"])
def test_what_is_no_png_is_refused_and_leaves_nothing(store, content):
    with pytest.raises(RequestError, match="no PNG"):
        store.add_image("me", content)
    assert files(store) == []


def test_collections(store):
    shelf, other = store.create_collection("me", "best"), store.create_collection("me", "worst")
    images = [store.add_image("me", png()) for _ in range(3)]
    for image in (*images[::-1], images[0]):
        assert store.add_to_collection(shelf.id, image)
    assert store.rename_collection(shelf.id, "the best")
    assert store.remove_from_collection(shelf.id, images[1])
    assert not store.remove_from_collection(shelf.id, images[1])
    assert [(one.name, one.images) for one in store.collections("me")] == [
        ("the best", (images[2], images[0])),
        ("worst", ()),
    ]
    assert store.collections("you") == []
    assert not store.add_to_collection("gone", images[0])
    assert not store.add_to_collection(other.id, "gone")
    assert store.delete_collection(shelf.id)
    assert not store.delete_collection(shelf.id)
    assert store.image(images[0]) is not None


def test_forgetting_a_job_keeps_what_is_in_a_collection(store):
    job = store.add_job("me", asked())
    kept, lost = (store.finish_slot(job.id, slot, png(), {})[0] for slot in (0, 1))
    store.add_to_collection(store.create_collection("me", "best").id, kept)
    assert store.delete_job(job.id)
    assert not store.delete_job(job.id)
    assert [store.image(lost), store.path(kept).exists(), len(files(store))] == [None, True, 1]


def test_what_was_running_is_queued_once_and_then_fails(tmp_path):
    first, second, whole = interrupted(tmp_path)
    for turn, states in enumerate([("queued", "queued", "done"), ("failed", "queued", "done")]):
        store = Store(tmp_path)
        changed = store.recover()
        assert [known(store.job(id)).state for id in (first, second, whole)] == list(states)
        assert {job.id for job in changed} == ({first, whole} if turn == 0 else {first})
        if turn == 0:
            assert known(store.claim()).id == first  # before the one that came later
            assert store.slots_done(first) == {1}
        else:
            assert known(store.job(first)).error == "interrupted"
            assert known(store.job(first)).images[1] is not None
        store.close()


def interrupted(folder: Path) -> tuple[str, str, str]:
    """A store whose server died with a job half painted, one queued, and one whose last slot had just been dropped."""
    store = Store(folder)
    whole, first, second = (store.add_job("me", asked()).id for _ in range(3))
    for job in (whole, first):
        store.claim()
        store.finish_slot(job, 1, png(), {})
    store.drop_slot(whole, 0)
    store.close()
    return first, second, whole


def test_a_job_released_in_good_order_was_never_interrupted(store):
    job = store.add_job("me", asked())
    for _ in range(3):
        assert known(store.claim()).attempts == 1
        assert known(store.release(job.id)).state == JobState.QUEUED


def test_files_without_rows_and_rows_without_files_are_swept(store):
    kept, lost = store.add_image("me", png()), store.add_image("me", png())
    folder = store.path(kept).parent
    (folder / f"{kept[:2]}stray.png").write_bytes(png())
    (folder / ".half.png.1.tmp").write_bytes(b"half")
    store.path(lost).unlink()
    store.recover()
    assert files(store) == [store.path(kept)]
    assert store.image(lost) is None


def test_a_full_disk_changes_nothing(store, monkeypatch):
    job = store.add_job("me", asked())

    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stores, "write_new", full)
        with pytest.raises(OSError, match="No space"):
            store.finish_slot(job.id, 0, png(), {})
    assert files(store) == []
    assert store.finish_slot(job.id, 0, png(), {})[0] is not None


def test_a_row_that_cannot_be_written_takes_its_file_along(store):
    with pytest.raises(TypeError):
        store.add_image("me", png(), settings={"not": object()})
    assert files(store) == []


def test_one_server_a_folder(store, tmp_path):
    with pytest.raises(ConfigError, match="another server has"):
        Store(store.data)
    with pytest.raises(ConfigError, match="cannot use the data folder"):
        Store(tmp_path / "data" / "lock")


def test_a_newer_database_and_none_at_all_are_one_line(tmp_path):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "unclip.db").write_bytes(b"no database" * 1000)
    Store(tmp_path / "new").close()
    with sqlite3.connect(tmp_path / "new" / "unclip.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    for folder, words in (("new", "newer unclip: its schema is 99"), ("torn", "cannot use .*unclip.db")):
        with pytest.raises(ConfigError, match=words) as error:
            Store(tmp_path / folder)
        assert "\n" not in str(error.value)


def test_a_folder_of_the_first_version_opens_with_all_it_holds(tmp_path):
    (tmp_path / "images" / "ab").mkdir(parents=True)
    (tmp_path / "images" / "ab" / "abc.png").write_bytes(png())
    with closing(sqlite3.connect(tmp_path / "unclip.db")) as db:
        db.executescript(STEPS[0] + "PRAGMA user_version = 1;")
        request = asked(seed=3).model_dump_json(exclude_defaults=True)
        jobs = [(4, "old", "done", 1.0), (7, "waits", "queued", 2.0), (9, "too", "queued", 3.0)]
        insert = "INSERT INTO jobs (seq, id, owner, request, state, created) VALUES (?, ?, 'me', ?, ?, ?)"
        db.executemany(insert, [(seq, id, request, state, created) for seq, id, state, created in jobs])
        db.execute("INSERT INTO images VALUES ('abc', 'me', 'made', 8, 6, 'old', 1, '{}', '[]', 1.0)")
        db.execute("INSERT INTO slots VALUES ('old', 1, 'abc')")
        db.commit()
    for _ in range(2):
        store = Store(tmp_path)
        store.recover()
        assert [job.id for job in store.jobs("me")] == ["too", "waits", "old"]
        old = known(store.job("old"))
        assert (old.images, old.dropped, old.detail, old.request.seed) == ((None, "abc"), (), None, 3)
        assert store.in_state(JobState.QUEUED) == ["waits", "too"]
        new = store.add_job("me", asked()).id
        assert store.move("too", "waits")
        assert store.in_state(JobState.QUEUED) == ["too", "waits", new]
        store.move("waits", "too")
        store.delete_job(new)
        store.close()


WRITER = """
import sys
from pathlib import Path
from unclip.server.jobs import JobRequest, JobState
from unclip.server.store import Store
store = Store(sys.argv[1])
png = Path(sys.argv[2]).read_bytes()
while True:
    job = store.add_job("me", JobRequest(task="generate", prompt="a cat", n=1))
    store.claim()
    image, _ = store.finish_slot(job.id, 0, png, {})
    store.update(job.id, state=JobState.DONE)
    print(job.id, image, flush=True)
"""


def test_killed_in_the_middle_of_writing_nothing_told_is_lost(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    for _ in range(3):
        arguments = [sys.executable, "-c", WRITER, str(tmp_path / "data"), str(tmp_path / "a.png")]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = [writer.stdout.readline().split() for _ in range(10)]
            os.kill(writer.pid, signal.SIGKILL)
            told += [words for words in map(str.split, writer.stdout) if len(words) == 2]
        store = Store(tmp_path / "data")
        store.recover()
        for job, image in told:
            assert known(store.job(job)).images == (image,)
            assert store.path(image).read_bytes() == png()
        assert len(store.in_state(JobState.RUNNING)) == 0
        store.close()


def test_a_thread_that_ends_leaves_the_others_alone(store):
    thread = threading.Thread(target=lambda: store.add_job("me", asked()))
    thread.start()
    thread.join()
    assert len(store.jobs("me")) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n": 11}, "n = 11"),
        ({"size": 100}, "size = 100"),
        ({"prompt": None}, "needs a prompt"),
        ({"prompt": "x" * 1001}, "at most 1000"),
        ({"images": ["a"]}, "generate takes 0 images, not 1"),
        ({"task": "interpolate", "images": ["a"], "prompt": None}, "takes 2 to 8 images, not 1"),
        ({"task": "text_diff", "images": ["a"]}, "differ"),
        ({"task": "outpaint", "images": ["a"]}, "at least one of"),
        ({"task": "variations", "images": ["a"], "mask": "b"}, "takes no mask"),
        ({"seed": 1 << 53}, "seed"),
        ({"guidance": float("nan")}, "guidance"),
        ({"pace": 3}, "unknown key pace"),
    ],
)
def test_a_request_that_cannot_be_is_one_line(wrong, words):
    with pytest.raises(ConfigError, match=words) as error:
        JobRequest.parse({"task": "generate", "prompt": "a cat"} | wrong, where="job")
    assert "\n" not in str(error.value)


def test_slots_and_their_seeds():
    assert [asked(n=3, seed=7).seed_of(slot) for slot in range(3)] == [7, 8, 9]
    strip = asked(task="interpolate", images=("a", "b"), frames=5, seed=7)
    assert (strip.slots, strip.seed_of(4)) == (5, 7)
    assert asked(task="text_diff", images=("a",), new="b", theta=(0.1, 0.2)).slots == 2


def test_what_the_page_is_told_of_a_job(store):
    told = store.add_job("secret owner", asked(seed=1)).to_json()
    assert (told["state"], told["images"], told["request"]["seed"]) == ("queued", [None, None], 1)
    assert "owner" not in told
    assert all(text.endswith(".") for text in ERRORS.values())
