"""The editor: a painted mask, a frame past the edge, candidates, undo; and that kept pixels stay as they were to the bit."""

import io

import numpy as np
import pytest
from conftest import downloaded, until
from PIL import Image
from playwright.sync_api import expect

SIDE = 256

KEPT = """() => new Promise((tell) => {
  indexedDB.open("unclip").onsuccess = ({ target: { result: database } }) => {
    const asked = database.transaction("editor").objectStore("editor").get("last");
    asked.onsuccess = () => (database.close(), tell(Boolean(asked.result?.job)));
  };
})"""  # whether the browser holds the canvas and its job


@pytest.fixture
def drawing() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def open_editor(open_page, server, drawing):
    """The editor with a picture of noise in it."""
    page = open_page(server.url + "#/edit")
    page.get_by_role("heading", name="Editor").wait_for()
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, "PNG")
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    return page


def middle(page) -> tuple[float, float]:
    box = page.locator("canvas.plane").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def paint(page, dx: int = 40) -> None:
    x, y = middle(page)
    page.mouse.move(x - dx, y)
    page.mouse.down()
    page.mouse.move(x + dx, y, steps=5)
    page.mouse.up()


def save(page) -> np.ndarray:
    return np.asarray(downloaded(page, page.get_by_role("button", name="Download").click))


def make(page, words: str) -> None:
    page.fill("#editor-prompt", words)
    page.keyboard.press("Enter")
    until(lambda: page.get_attribute("#edit", "data-state") == "choosing")


def test_a_painted_mask_is_repainted_and_nothing_else(shared_server, open_page, drawing):
    page = open_editor(open_page, shared_server, drawing)
    paint(page)
    make(page, "a red balloon")
    page.keyboard.press("ArrowRight")
    page.locator(".candidate-words", has_text="Candidate 2 of 4").wait_for()
    page.get_by_role("button", name="Accept").click()
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    made = save(page)
    changed = (made[..., :3] != drawing).any(-1)
    assert made.shape == (SIDE, SIDE, 4)
    assert (made[..., 3] == 255).all()
    rows = np.nonzero(changed)[0]
    assert abs(rows - SIDE / 2).max() <= SIDE / 16 + 2  # the brush's radius
    assert 200 < changed.sum() < SIDE * SIDE / 8
    page.keyboard.press("Control+z")
    assert (save(page)[..., :3] == drawing).all()
    page.keyboard.press("Control+Shift+z")
    assert (save(page) == made).all()


def test_a_frame_past_the_edge_grows_the_picture(shared_server, open_page, drawing):
    page = open_editor(open_page, shared_server, drawing)
    page.keyboard.press("f")
    page.focus("canvas.plane")
    for _ in range(2):
        page.keyboard.press("Shift+ArrowRight")
    make(page, "the sea goes on")
    page.get_by_role("button", name="Accept").click()
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    made = save(page)
    assert made.shape == (SIDE, SIDE + 128, 4)
    assert (made[:, :SIDE, :3] == drawing).all()
    assert (made[:, SIDE:, 3] == 255).all()


def test_the_frame_is_dragged_with_the_mouse(shared_server, open_page, drawing):
    page = open_editor(open_page, shared_server, drawing)
    page.keyboard.press("f")
    x, y = middle(page)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 150, steps=6)
    page.mouse.up()
    make(page, "the sky goes on")
    page.get_by_role("button", name="Accept").click()
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    height = save(page).shape[0]
    assert SIDE + 20 < height < 2 * SIDE


def test_brush_eraser_and_undo_agree_on_the_mask(shared_server, open_page, drawing):
    page = open_editor(open_page, shared_server, drawing)
    page.keyboard.press("Control+Enter")
    page.get_by_text("Nothing in the frame is to be painted").wait_for()
    paint(page)
    page.keyboard.press("e")
    x, y = middle(page)
    for dy in (-30, 0, 30):
        page.mouse.move(x - 80, y + dy)
        page.mouse.down()
        page.mouse.move(x + 80, y + dy, steps=5)
        page.mouse.up()
    page.keyboard.press("Control+Enter")
    page.get_by_text("Nothing in the frame is to be painted").wait_for()
    for _ in range(4):
        page.keyboard.press("Control+z")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    expect(page.get_by_role("button", name="Redo")).to_be_enabled()


def test_the_keyboard_paints_too(shared_server, open_page, drawing):
    page = open_editor(open_page, shared_server, drawing)
    page.focus("canvas.plane")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.keyboard.press("Control+Enter")
    until(lambda: page.get_attribute("#edit", "data-state") == "choosing")
    page.keyboard.press("Escape")
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    assert (save(page)[..., :3] == drawing).all()


def test_cancel_and_retry_keep_the_mask(own_server, open_page, drawing):
    page = open_editor(open_page, own_server, drawing)
    paint(page)
    page.fill("#editor-prompt", "soon not wanted")
    page.keyboard.press("Enter")
    page.locator(".candidate .preview:visible").first.wait_for()
    page.keyboard.press("Escape")
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    make(page, "wanted")
    page.get_by_role("button", name="Retry").click()
    until(lambda: page.get_attribute("#edit", "data-state") == "making")
    until(lambda: page.get_attribute("#edit", "data-state") == "choosing")
    assert (save_through_cancel(page)[..., :3] == drawing).all()


def save_through_cancel(page) -> np.ndarray:
    page.get_by_role("button", name="Cancel").last.click()
    return save(page)


def test_a_reload_brings_the_canvas_and_its_job_back(own_server, open_page, drawing):
    page = open_editor(open_page, own_server, drawing)
    paint(page)
    page.fill("#editor-prompt", "over a reload")
    page.keyboard.press("Enter")
    until(lambda: page.get_attribute("#edit", "data-state") == "making")
    until(lambda: page.evaluate(KEPT))  # a moment after the last change
    page.reload()
    until(lambda: page.get_attribute("#edit", "data-state") == "choosing")
    expect(page.locator("#editor-prompt")).to_have_value("over a reload")
    page.get_by_role("button", name="Accept").click()
    changed = (save(page)[..., :3] != drawing).any(-1).sum()
    assert 200 < changed < SIDE * SIDE / 8
