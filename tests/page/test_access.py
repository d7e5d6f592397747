"""That everybody can use the page: axe's rules, a phone, dark and light, no motion, and a long history."""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import finished, generate, until
from PIL import Image

SHOWN = ("create", "settings", "viewer", "collections", "editor", "keys")
HISTORY, LISTED = 2_000, 50
STEPS, BUSY = 60, 0.03  # turns of the wheel, and seconds that one may cost


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The source of axe-core, fetched by npm for this run."""
    npm = shutil.which("npm")
    assert npm is not None, "axe-core comes by npm, which is not here"
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "axe-core@4"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=120)
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


def go(page, shown: str) -> None:
    """Brings one of the page's places on the screen, with a finished job in the history."""
    if shown in ("collections", "editor"):
        page.evaluate(f"location.hash = '#/{shown.removesuffix('or')}'")
    if shown == "settings":
        page.click("summary")
    if shown == "keys":
        page.click("h1", force=True, position={"x": 0, "y": 0})
        page.keyboard.press("?")
    if shown == "viewer":
        page.locator(".tile-open").first.click()
        page.locator(".viewer-title:not(:empty)").wait_for()
    page.wait_for_timeout(300)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(shared_server, open_page, axe, scheme):
    for shown in SHOWN:
        page = open_page(shared_server.url, color_scheme=scheme, reduced_motion="reduce")
        finished(generate(page, f"seen by all, {scheme} {shown}"))
        go(page, shown)
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(({ violations }) => violations)")
        serious = [
            (fault["id"], [node["html"][:120] for node in fault["nodes"]])
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == [], shown


@pytest.mark.parametrize("shown", SHOWN[:-1])  # a phone has no keyboard
def test_a_phone_never_scrolls_sideways(shared_server, open_page, shown):
    page = open_page(shared_server.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    finished(generate(page, "a word that is verylongandwillnotbreakbyitselfwhateverhappenstoit"))
    go(page, shown)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = page.evaluate("""() => [...document.querySelectorAll('dialog[open] *, main:not([hidden]) *')]
      .filter((each) => each.checkVisibility() && each.getBoundingClientRect().right > 361).map((each) => each.className)""")
    assert wide == []


def test_nothing_moves_for_who_wants_no_motion(shared_server, open_page):
    page = open_page(shared_server.url, reduced_motion="reduce")
    generate(page, "at rest").locator(".growing .preview:visible").first.wait_for()
    pixels = "document.querySelector('.card .noise').toDataURL()"
    before = page.evaluate(pixels)
    page.wait_for_timeout(350)
    assert page.evaluate(pixels) == before


def test_no_script_or_style_is_inline(shared_server, open_page):
    page = open_page(shared_server.url)
    told = page.request.get(shared_server.url)
    assert "default-src 'self'" in told.headers["content-security-policy"]
    assert "unsafe" not in told.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style|javascript:", told.text())


def job(index: int) -> dict:
    images = [f"image-{index}-{slot}" for slot in range(4)]
    request = {"task": "generate", "model": "stub", "prompt": f"job {index} of many", "images": [], "seed": index, "n": 4}
    told = {"id": f"job-{index:05d}", "request": request, "state": "done", "created": 1e9 + index, "started": 1e9 + index}
    return told | {"finished": 1e9 + index, "error": None, "images": images, "progress": 1.0, "attempts": 1}


def test_a_long_history_scrolls_and_stays_small(shared_server, open_page):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(buffer, "PNG")

    def listed(route):
        before = re.search(r"before=job-(\d+)", route.request.url)
        newest = int(before[1]) - 1 if before else HISTORY - 1
        told = {"jobs": [job(index) for index in range(newest, max(-1, newest - LISTED), -1)]}
        route.fulfill(body=json.dumps(told), content_type="application/json")

    page = open_page(shared_server.url)
    page.route("**/thumb", lambda route: route.fulfill(body=buffer.getvalue(), content_type="image/png"))
    page.route(re.compile(r"/api/jobs\?"), listed)
    page.reload()
    page.locator(".card").first.wait_for()
    until(
        lambda: page.evaluate("scrollTo(0, document.body.scrollHeight)") or page.locator("text=job 0 of many").count() == 1
    )
    assert page.evaluate("document.querySelectorAll('.card').length") < 100
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    before = busy(devtools)
    for _ in range(STEPS):
        page.mouse.wheel(0, -1500)
        page.wait_for_timeout(16)
    assert (busy(devtools) - before) / STEPS < BUSY
    assert page.evaluate("document.querySelectorAll('.card').length") < 100


def busy(devtools) -> float:
    """Seconds that the page's own script, styles and layout have taken so far; painting is the machine's."""
    told = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    return told["ScriptDuration"] + told["LayoutDuration"] + told["RecalcStyleDuration"]
