"""Frames: their times, runs of equal ones, turned ones, and videos that are cut off or none."""

import numpy as np
import pytest
from toy_search import drawn, film

from unclip.data.faults import Broken
from unclip.errors import DataError
from unclip.search.video import clock, frame_at, runs

IDENTITY = b"".join(number.to_bytes(4, "big") for number in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))


def times(path, every=0.0):
    return [(run.time, run.until) for run in runs(path, every)]


def is_scene(image, number) -> bool:
    return bool(abs(np.asarray(image, dtype=int) - np.asarray(drawn(number, image.size), dtype=int)).mean() < 25)


def test_key_frames_fall_on_the_scenes_and_equal_ones_are_merged(tmp_path):
    path = film(tmp_path / "a.mp4", [1, 2, 2, 3], every_key=10)
    assert times(path) == [(0, 1), (1, 3), (3, 4)]
    assert [is_scene(run.image, number) for run, number in zip(runs(path), (1, 2, 3), strict=True)] == [True] * 3
    many = film(tmp_path / "b.mkv", [1, 2, 2, 3], every_key=5)
    assert [time for time, _ in times(many)] == [0, 1, 3]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_frame_every_so_many_seconds(tmp_path, name):
    path = film(tmp_path / name, [1, 2, 3, 3, 1], seconds=0.6)
    assert np.allclose(times(path, 0.2), [(0, 0.6), (0.6, 1.2), (1.2, 2.4), (2.4, 3.0)], atol=1e-3)
    assert [time for time, _ in times(path, 1.0)] == pytest.approx([0, 1, 2], abs=0.11)
    assert len(times(path, 60)) == 1


def test_the_frame_of_a_moment_is_the_one_that_is_shown(tmp_path):
    path = film(tmp_path / "a.mp4", [1, 2, 3])
    for seconds, number in ((0, 1), (0.95, 1), (1, 2), (1.5, 2), (2.0, 3), (99, 3)):
        assert is_scene(frame_at(path, seconds), number), seconds
    for run in runs(path):
        assert np.array_equal(np.asarray(run.image), np.asarray(frame_at(path, run.time)))


def test_a_phone_held_upright_films_upright(tmp_path):
    path = film(tmp_path / "a.mp4", [1])
    data = path.read_bytes()
    place = data.index(b"tkhd")
    start = data.index(IDENTITY, place)
    quarter = b"".join(
        number.to_bytes(4, "big", signed=True) for number in (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    )
    path.write_bytes(data[:start] + quarter + data[start + len(quarter) :])
    upright = next(runs(path)).image
    assert upright.size == (48, 64)
    clockwise = np.rot90(np.asarray(drawn(1, (64, 48)), dtype=int), -1)
    assert abs(np.asarray(upright, dtype=int) - clockwise).mean() < 25


def test_a_video_that_is_cut_off_gives_its_frames_and_then_says_so(tmp_path):
    path = film(tmp_path / "a.mkv", [1, 2, 3, 4, 5, 6], every_key=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = []
    with pytest.raises(Broken, match=r"cut off after 0:0\d of 0:06"):
        seen.extend(run.time for run in runs(path, 0.5))
    assert seen[:2] == [0, 1]
    assert len(seen) < 6


@pytest.mark.parametrize("content", [b"", b"no video" * 500, "head", "playlist"])
def test_what_is_no_video(tmp_path, content):
    path = tmp_path / "a.mp4"
    if content == "head":  # an mp4 has its table of contents at the end
        content = film(path, [1, 2]).read_bytes()[:1400]
    if content == "playlist":  # must not make FFmpeg open what it names
        film(tmp_path / "b.ts.mp4", [1])
        content = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/b.ts.mp4\n#EXT-X-ENDLIST\n".encode()
    path.write_bytes(content)
    with pytest.raises(Broken, match="not a readable video"):
        list(runs(path))
    with pytest.raises(DataError, match=r"a\.mp4: not a readable video") as error:
        frame_at(path, 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("seconds", "words"), [(0.9, "0:00"), (75, "1:15"), (3723, "1:02:03")])
def test_clock(seconds, words):
    assert clock(seconds) == words
