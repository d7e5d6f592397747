"""That everybody can use the page: axe's rules, a phone, dark and light, and no motion."""

import re
import shutil
import subprocess

import pytest
from conftest import begin_long, finished, generate

SHOWN = ("create", "settings", "viewer", "downloads", "chooser", "offer", "collections", "editor", "keys")


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
    if shown in ("viewer", "downloads"):
        page.locator(".tile-open").first.click()
        page.locator(".viewer-title:not(:empty)").wait_for()
    if shown == "downloads":
        page.get_by_role("button", name="How it is downloaded").click()
    if shown == "chooser":
        page.get_by_role("button", name="Add a picture").click()
    if shown == "offer":
        made = page.locator(".tile-open").first.get_attribute("data-image")
        png = page.request.get(f"{page.evaluate('location.origin')}/api/images/{made}").body()
        page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": png})
        page.locator(".offer").wait_for()
    page.wait_for_timeout(300)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(own_server, open_page, axe, scheme):
    finished(generate(open_page(own_server.url), "seen by all"))
    for shown in SHOWN:
        page = open_page(own_server.url, color_scheme=scheme, reduced_motion="reduce")
        page.locator(".tile[data-state=done]").first.wait_for()
        go(page, shown)
        page.evaluate(axe)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)")
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
    card = begin_long(page, "at rest")
    pixels = "document.querySelector('.card .noise').toDataURL()"
    before = page.evaluate(pixels)
    page.wait_for_timeout(350)
    assert page.evaluate(pixels) == before
    card.get_by_role("button", name="Cancel").click()


def test_no_script_or_style_is_inline(shared_server, open_page):
    page = open_page(shared_server.url)
    told = page.request.get(shared_server.url)
    assert "default-src 'self'" in told.headers["content-security-policy"]
    assert "unsafe" not in told.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style|javascript:", told.text())
