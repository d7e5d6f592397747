"""The page of a map, opened from the disk in a Chromium: pointing, keys, legend, finding, zooming, and no call outside."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from playwright.sync_api import expect
from test_house_page import LONGEST, MOST_LINES, blanked, functions

import unclip.maps
from unclip.clip import unit
from unclip.maps.clouds import clouds_of
from unclip.maps.page import write_page
from unclip.maps.plane import lay
from unclip.maps.rows import THUMBNAIL, Rows

COUNT = 30
PARTS = Path(unclip.maps.__file__).parent


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Thirty pictures, each of one grey, with captions, and a prior's z."""
    draw = torch.Generator().manual_seed(0)
    z, text, prior = (unit(torch.randn(COUNT, 8, generator=draw)) for _ in range(3))
    greys = [np.full((THUMBNAIL, THUMBNAIL, 3), 8 * i, np.uint8) for i in range(COUNT)]
    rows = Rows(z, text, [f"thing {i}" for i in range(COUNT)], [f"{i}.png" for i in range(COUNT)], [*greys])
    clouds = clouds_of(rows, prior)
    path = tmp_path_factory.mktemp("map") / "map.html"
    write_page(path, rows, clouds, lay(clouds), title="A map", note="n")
    return path


@pytest.fixture
def opened(chromium, written):
    """The page, and in the end that it asked nobody for anything and met no error."""
    faults, asked = [], []

    def on(scheme: str = "light"):
        page = chromium.new_context(viewport={"width": 1000, "height": 700}, color_scheme=scheme).new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or asked.append(request.url))
        page.goto(written.as_uri())
        page.wait_for_function("sheet.complete && map.width > 0 && view.scale > 1")
        return page

    yield on
    assert (faults, asked) == ([], [])


def point_at(page, cloud: int, at: int) -> None:
    x, y = page.evaluate(f"screen(clouds[{cloud}], {at})")
    box = page.locator("#map").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)


def colour(page, x: float, y: float) -> tuple[int, ...]:
    """Of what is seen of the map there."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = page.locator("#map").bounding_box()
    shot = page.screenshot(clip={"x": box["x"] + x, "y": box["y"] + y, "width": 1, "height": 1})
    with Image.open(io.BytesIO(shot)) as image:
        return image.convert("RGB").getpixel((0, 0))


def test_pointing_shows_the_picture_its_caption_and_the_lines_of_its_pair(opened):
    page = opened()
    card = page.locator("#card")
    expect(card).to_be_hidden()
    at = page.evaluate("clouds[1].places.findIndex((_, at) => nearest(...screen(clouds[1], at)).cloud === clouds[1])")
    (x, y), (px, py) = page.evaluate(f"[screen(clouds[1], {at}), screen(clouds[0], {at})]")
    middle = (x + px) / 2, (y + py) / 2
    before = colour(page, *middle)
    point_at(page, 1, at)
    card.wait_for()
    chosen = page.evaluate("chosen.cloud.rows[chosen.at]")
    expect(page.locator("#caption")).to_have_text(f"thing {chosen}", use_inner_text=True)
    expect(page.locator("#details")).to_contain_text(f"captions · {chosen}.png", use_inner_text=True)
    expect(page.locator("#details")).to_contain_text("the prior's z: cosine", use_inner_text=True)
    grey = page.evaluate("document.getElementById('thumbnail').getContext('2d').getImageData(24, 24, 1, 1).data[0]")
    assert abs(grey - 8 * chosen) < 8
    assert colour(page, *middle) != before
    page.mouse.move(2, 2)
    card.wait_for(state="hidden")


def test_the_keys_go_from_dot_to_dot_and_zoom(opened):
    page = opened()
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#card").wait_for()
    first = page.evaluate("screen(chosen.cloud, chosen.at)")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("screen(chosen.cloud, chosen.at)")[0] > first[0]
    scale = page.evaluate("view.scale")
    page.keyboard.press("+")
    assert page.evaluate("view.scale") == pytest.approx(1.4 * scale)
    x = page.evaluate("view.x")
    page.keyboard.press("Shift+ArrowRight")
    assert page.evaluate("view.x") == pytest.approx(x - 60)
    page.keyboard.press("0")
    assert page.evaluate("view.scale") == pytest.approx(scale)
    page.keyboard.press("Escape")
    page.locator("#card").wait_for(state="hidden")


def test_everything_is_reached_by_the_tab_key(opened):
    page = opened()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached[0].startswith("pictures (")
    assert reached[3:8] == ["find", "closer", "further", "whole", "map"]


def test_the_legend_takes_a_cloud_away_and_brings_it_back(opened):
    page = opened()
    x, y = page.evaluate("screen(clouds[0], 0)")
    there = colour(page, x, y)
    button = page.get_by_role("button", name="pictures (30)")
    button.press("Enter")
    expect(button).to_have_attribute("aria-pressed", "false")
    assert colour(page, x, y) != there
    assert page.evaluate("(() => { let n = 0; each(() => n++); return n; })()") == 2 * COUNT
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    assert colour(page, x, y) == there


def test_wheel_and_drag_move_the_map_under_the_pointer(opened):
    page = opened()
    box = page.locator("#map").bounding_box()
    at = box["width"] / 4, box["height"] / 4
    page.mouse.move(box["x"] + at[0], box["y"] + at[1])
    before = page.evaluate(f"({at[0]} - view.x) / view.scale")
    page.mouse.wheel(0, -300)
    page.wait_for_function("view.moved")
    assert page.evaluate(f"({at[0]} - view.x) / view.scale") == pytest.approx(before, abs=5e-3)
    x = page.evaluate("view.x")
    page.mouse.down()
    page.mouse.move(box["x"] + at[0] + 50, box["y"] + at[1], steps=4)
    page.mouse.up()
    assert page.evaluate("view.x") == pytest.approx(x + 50, abs=1)
    page.get_by_role("button", name="Whole").click()
    assert not page.evaluate("view.moved")


def test_a_caption_is_found(opened):
    page = opened()
    page.fill("#find", "THING 2")
    expect(page.locator("#found")).to_have_text(re.compile("^11 found"), use_inner_text=True)  # 2 and 20 to 29
    page.press("#find", "Enter")
    expect(page.locator("#caption")).to_have_text("thing 2", use_inner_text=True)
    page.press("#find", "Enter")
    expect(page.locator("#caption")).to_have_text("thing 20", use_inner_text=True)
    page.fill("#find", "nowhere")
    expect(page.locator("#found")).to_have_text("0 found", use_inner_text=True)


def test_light_and_dark(opened):
    grounds = [opened(scheme).evaluate("getComputedStyle(document.body).backgroundColor") for scheme in ("light", "dark")]
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def test_its_script_keeps_the_rules_of_the_house():
    code = (PARTS / "map.js").read_text(encoding="utf-8")
    assert code.startswith("/**")
    assert all(len((PARTS / name).read_text(encoding="utf-8").splitlines()) <= MOST_LINES for name in ("map.js", "map.css"))
    assert [head for head, lines in functions(code) if lines > LONGEST] == []
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write", "Function("):
        assert word not in blanked(code)
