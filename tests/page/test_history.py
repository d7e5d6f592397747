"""Ten thousand jobs: the history scrolls, jumps, holds what is looked at where it is, and is used by keys as a short one."""

import io
import json
import os
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from conftest import Server, generate, until
from PIL import Image
from playwright.sync_api import expect

from unclip.server.jobs import JobRequest
from unclip.server.store import Store

JOBS, PICTURES = 10_000, 4
FRAME = 0.1  # seconds that a frame may take of the page's own time; what other processes take of the machine is theirs
THERE = 40  # cards that may be there at a time


def fill(data: Path) -> None:
    """A store as it would be after ten thousand jobs; its pictures are a few, under many names."""
    Store(data).close()
    draw = np.random.default_rng(1)
    files = []
    for number in range(16):
        buffer = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(buffer, "PNG")
        files.append(data / f"{number}.png")
        files[-1].write_bytes(buffer.getvalue())
    jobs, images, slots = [], [], []
    for job in range(JOBS):
        request = JobRequest(task="generate", prompt=f"job {job} of many", seed=job, n=PICTURES)
        asked = request.model_dump_json(exclude_defaults=True)
        jobs.append((job + 1, job + 1, f"job-{job}", "local", asked, "done", 1e9 + job, 1.0))
        for slot in range(PICTURES):
            id = f"{job % 100:02}-{job}-{slot}"
            (data / "images" / id[:2]).mkdir(exist_ok=True)
            os.link(files[(PICTURES * job + slot) % len(files)], data / "images" / id[:2] / f"{id}.png")
            images.append((id, "local", "made", 256, 256, f"job-{job}", slot, json.dumps({}), json.dumps([]), 1e9 + job))
            slots.append((f"job-{job}", slot, id, 0))
    with closing(sqlite3.connect(data / "unclip.db")) as db:
        columns = "seq, place, id, owner, request, state, created, progress"
        db.executemany(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", jobs)
        db.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", images)
        db.executemany("INSERT INTO slots VALUES (?, ?, ?, ?)", slots)
        db.commit()


@pytest.fixture(scope="module")
def long_server(chromium, tmp_path_factory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("long") / "data"
    fill(data)
    server = Server(data).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def whole(chromium, long_server) -> Iterator:
    """A page that knows all of the jobs, and in how long a frame it learned of them."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(long_server.url)
    page.locator(".card").first.wait_for()

    def oldest_is_there() -> bool:
        page.evaluate("void scrollTo(0, document.body.scrollHeight)")  # without void, its promise is an answer
        return page.locator(".card[data-job=job-0]:not([aria-setsize='-1'])").count() == 1

    yield page, longest(page, lambda: until(oldest_is_there, seconds=90))
    context.close()


def longest(page, act) -> float:
    """Seconds of its own time that the page's main thread was longest busy without a break, while `act` ran.

    Without the collection of garbage, whose cost on a machine like ours says little: 30 to 160 ms of a heap of any size.
    """
    page.context.browser.start_tracing(page=page, categories=["-*", "toplevel", "devtools.timeline"])
    act()
    told = json.loads(page.context.browser.stop_tracing())["traceEvents"]
    main = {(each["pid"], each["tid"]) for each in told if each.get("args", {}).get("name") == "CrRendererMain"}
    own = [each for each in told if (each["pid"], each["tid"]) in main and "tdur" in each]
    tasks = [each for each in own if each["name"].endswith("RunTask")]
    assert len(tasks) > 100, "nothing was traced"
    garbage = sorted((each["ts"], each["tdur"]) for each in own if each["name"] in ("MajorGC", "MinorGC"))
    starts = [ts for ts, _ in garbage]

    def without(task) -> int:
        inside = garbage[bisect_left(starts, task["ts"]) : bisect_left(starts, task["ts"] + task["dur"])]
        return task["tdur"] - sum(tdur for _, tdur in inside)

    return max(map(without, tasks)) / 1e6


def wheel(page, by: int, turns: int) -> None:
    page.mouse.move(640, 500)
    for _ in range(turns):
        page.mouse.wheel(0, by)
        page.wait_for_timeout(16)


def to(page, place: float) -> None:
    """Jumps to a part of the whole length, as a drag of the scroll bar does, and waits until it is drawn."""
    page.evaluate("(place) => void scrollTo(0, place * document.body.scrollHeight)", place)
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


def test_no_frame_is_long_while_all_of_them_are_loaded(whole):
    page, frame = whole
    assert int(page.locator(".card").last.get_attribute("aria-setsize")) >= JOBS
    assert frame < FRAME


def test_no_frame_is_long_while_all_of_them_are_scrolled_through(whole):
    page, _ = whole

    def scroll() -> None:
        wheel(page, -1500, 60)
        for place in (0.5, 0.1, 0.9, 0.3, 0.7):
            to(page, place)
        wheel(page, 1500, 60)

    assert longest(page, scroll) < FRAME
    assert page.locator(".card").count() <= THERE
    assert page.evaluate("document.querySelectorAll('*').length") < 3000


def test_the_screen_is_never_without_cards_after_a_jump(whole):
    page, _ = whole
    for place in (0.8, 0.2, 0.999, 0.5):
        to(page, place)
        shown = """() => [...document.querySelectorAll('.card')].map((card) => card.getBoundingClientRect())
          .filter((box) => box.bottom > 56 && box.top < innerHeight).reduce((sum, box) => sum + box.height, 0)"""
        assert page.evaluate(shown) > 600
        middle = int(page.locator(".card").nth(4).get_attribute("aria-posinset"))
        assert abs(middle / JOBS - place) < 0.02


def test_what_is_looked_at_stays_where_it_is_when_something_new_comes(whole, long_server):
    page, _ = whole
    to(page, 0.5)
    card = page.locator(f".card[data-job={page.locator('.card').nth(5).get_attribute('data-job')}]")
    total, before = int(card.get_attribute("aria-setsize")), card.bounding_box()["y"]
    asked = {"task": "generate", "prompt": "quite new", "n": 1, "steps": 1}
    assert page.request.post(f"{long_server.url}api/jobs", data=asked).status == 201
    until(lambda: int(card.get_attribute("aria-setsize")) == total + 1)
    assert abs(card.bounding_box()["y"] - before) < 2


def test_a_card_that_has_the_focus_keeps_it_however_far_one_scrolls(whole):
    page, _ = whole
    to(page, 0.5)
    job = int(page.locator(".card").nth(5).get_attribute("data-job").removeprefix("job-"))
    page.locator(f".card[data-job=job-{job}]").get_by_role("button", name="Reuse settings").focus()
    to(page, 0.1)
    expect(page.locator(f".card[data-job=job-{job - 3}]")).to_have_count(0)
    focused = "document.activeElement.closest('.card')?.dataset.job"
    assert page.evaluate(focused) == f"job-{job}"
    page.keyboard.press("PageDown")
    until(lambda: page.evaluate(focused) == f"job-{job - 1}")
    top = page.evaluate("document.activeElement.getBoundingClientRect().top")
    assert 0 <= top < 200
    page.keyboard.press("PageUp")
    until(lambda: page.evaluate(focused) == f"job-{job}")


def test_the_queue_leads_to_a_card_from_anywhere(own_server, open_page):
    page = open_page(own_server.url)
    page.click("summary")
    page.fill("#field-steps", "500")
    generate(page, "far from here")
    page.evaluate("location.hash = '#/collections'")
    page.locator("#collections h1").wait_for()
    page.click(".queue-opener")
    page.locator(".queue-name", has_text="far from here").click()
    until(lambda: page.evaluate("document.activeElement.closest('.card') !== null"))
    expect(page.locator(".card", has_text="far from here")).to_be_visible()
