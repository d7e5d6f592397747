"""What comes into the prompt box: words by the token, pictures from anywhere, settings out of a file; and how it leaves."""

import base64
import io

import numpy as np
import pytest
from conftest import downloaded, finished, generate, until
from PIL import Image
from playwright.sync_api import expect

from unclip.server.provenance import COLOURS
from unclip.server.uploads import chunk

SIGN = tuple(int(COLOURS[-1][at : at + 2], 16) for at in (1, 3, 5))  # of the last square, in the very corner

SHARES = """navigator.canShare = () => true;
  navigator.share = async ({ files: [file] }) => { window.shared = [file.name, file.size]; };"""

FILES = """async ([kind, name, type, words]) => {
  const bytes = Uint8Array.from(atob(words), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer(); data.items.add(new File([bytes], name, { type }));
  const event = kind === 'drop'
    ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


def bring(page, kind: str, png: bytes) -> None:
    """Drops or pastes a file."""
    page.evaluate(FILES, [kind, "a.png", "image/png", base64.b64encode(png).decode()])


def with_text(png: bytes, text: bytes) -> bytes:
    """A PNG with an iTXt chunk behind its header."""
    return png[:33] + chunk(b"iTXt", text) + png[33:]


def attached(page, count: int) -> list[str]:
    """Waits for so many pictures in the prompt box; their ids."""
    until(lambda: page.locator(".attached-picture").count() == count)
    return page.eval_on_selector_all(".attached-picture img", "all => all.map((each) => each.dataset.image)")


def ids(card) -> list[str]:
    return card.locator(".tile-open").evaluate_all("all => all.map((each) => each.dataset.image)")


@pytest.fixture
def plain() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_the_model_will_not_read_is_told_while_it_is_typed(shared_server, open_page):
    page = open_page(shared_server.url)
    page.click("summary")
    page.select_option("#field-model", "icons")
    page.fill("#prompt", "cat " * 22)
    page.get_by_text("22 of 22 tokens").wait_for()
    expect(page.locator("#prompt-cut")).to_be_hidden()
    page.fill("#prompt", "cat " * 22 + "and a dog")
    page.locator("#prompt-cut s", has_text="and a dog").wait_for()
    expect(page.get_by_text("25 of 22 tokens")).to_be_visible()
    until(lambda: "Left out: and a dog" in page.locator("#announcer").inner_text())
    page.fill("#prompt", "cat")
    page.get_by_text("1 of 22 tokens").wait_for()
    expect(page.locator("#prompt-cut")).to_be_hidden()


def test_a_picture_made_here_offers_its_settings(shared_server, open_page, plain):
    page = open_page(shared_server.url)
    page.click("summary")
    page.fill("#field-seed", "77")
    page.fill("#field-steps", "4")
    made = ids(finished(generate(page, "once upon a file")))[2]
    png = page.request.get(f"{shared_server.url}api/images/{made}").body()
    for name in ("#prompt", "#field-seed", "#field-steps"):
        page.fill(name, "")
    bring(page, "drop", png)
    page.get_by_role("dialog", name="This picture was made here").get_by_text("once upon a file").wait_for()
    page.get_by_role("button", name="Reuse its settings").click()
    expect(page.locator("#prompt")).to_have_value("once upon a file")
    expect(page.locator("#field-seed")).to_have_value("79")  # the third picture's own
    expect(page.locator("#field-steps")).to_have_value("4")
    assert attached(page, 0) == []
    bring(page, "paste", png)
    page.get_by_role("button", name="Use as a picture").click()
    attached(page, 1)
    bring(page, "paste", page.request.get(f"{shared_server.url}api/images/{made}?settings=false").body())
    attached(page, 2)
    bring(page, "drop", plain)
    attached(page, 3)


@pytest.mark.parametrize(
    "text",
    [b"unclip\0\0\0\0\0{", b"unclip\0\0\0\0\0[1]", b"unclip\0\1\0\0\0x", b"unclip", b'unclip\0\0\0\0\0{"task": {}}'],
)
def test_a_strangers_settings_are_no_danger(shared_server, open_page, plain, text):
    page = open_page(shared_server.url)
    bring(page, "drop", with_text(plain, text))
    attached(page, 1)


def test_a_picture_of_the_command_line_offers_its_settings_too(shared_server, open_page, plain):
    page = open_page(shared_server.url)
    words = '{"prompt": "een uil 🦉", "seed": 5, "model": "icons", "candidates": 2, "parents": []}'
    bring(page, "drop", with_text(plain, b"unclip\0\0\0\0\0" + words.encode()))
    page.get_by_role("button", name="Reuse its settings").click()
    expect(page.locator("#prompt")).to_have_value("een uil 🦉")
    expect(page.locator("#field-seed")).to_have_value("5")
    expect(page.locator("#field-model")).to_have_value("icons")


def test_a_picture_is_dragged_from_the_history(shared_server, open_page):
    page = open_page(shared_server.url)
    card = finished(generate(page, "to be dragged"))
    page.drag_and_drop(".tile-open img >> nth=1", ".composer-box")
    assert attached(page, 1) == [ids(card)[1]]
    card.locator(".tile-open img").nth(3).hover()
    page.mouse.down()
    page.mouse.move(600, 600, steps=4)
    box = page.locator(".drop-place", has_text="Editor").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20, steps=4)
    page.mouse.up()
    until(lambda: page.get_attribute("#edit", "data-state") == "ready")
    expect(page.locator(".drop-tray")).to_be_hidden()


def test_pictures_of_the_history_are_chosen_and_blended(shared_server, open_page):
    page = open_page(shared_server.url)
    first, second, third = ids(finished(generate(page, "to be chosen")))[:3]
    page.get_by_role("button", name="Add a picture").click()
    page.locator(f".chooser-picture:has([data-image='{third}'])").click()
    assert attached(page, 1) == [third]
    page.get_by_role("button", name="Take picture 1 out").click()
    page.locator(f".tile-open[data-image='{first}']").click()
    page.get_by_role("button", name="Blend with another").click()
    page.locator(f".chooser-picture:has([data-image='{second}'])").click()
    assert attached(page, 2) == [first, second]
    page.get_by_role("button", name="Turn round").press("Enter")
    assert attached(page, 2) == [second, first]
    assert page.evaluate("document.activeElement.id") == "turn-round"


def test_how_far_words_change_a_picture_is_a_slider(shared_server, open_page, plain):
    page = open_page(shared_server.url)
    bring(page, "paste", plain)
    page.click("label[for=task-text_diff]")
    page.fill("#field-old", "a cat")
    page.fill("#field-new", "a tiger")
    page.locator("#field-theta").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        page.keyboard.press("Control+Enter")
    assert sent.value.post_data_json["theta"] == [0.05, 0.1, 0.15, 0.2]


def test_downloads_are_signed_and_stripped_as_switched(shared_server, open_page):
    page = open_page(shared_server.url)
    card = finished(generate(page, "to leave"))
    card.locator(".tile-open").first.click()
    page.locator(".viewer-title", has_text="to leave").wait_for()
    save = page.locator(".viewer-actions").get_by_role("button", name="Download", exact=True).click
    plain = downloaded(page, save)
    assert "unclip" in plain.info
    assert plain.getpixel((255, 255)) != SIGN
    page.get_by_role("button", name="How it is downloaded").click()
    page.locator("#viewer-signature").check()
    page.locator("#viewer-settings").uncheck()
    signed = downloaded(page, save)
    assert "unclip" not in signed.info
    assert signed.getpixel((255, 255)) == SIGN
    page.keyboard.press("Escape")
    until(lambda: page.evaluate("location.hash") in ("", "#/"))
    page.reload()
    page.click("summary")
    expect(page.locator("#fold-signature")).to_be_checked()
    expect(page.locator("#fold-settings")).not_to_be_checked()


def test_a_picture_is_shared_by_the_system_where_it_can(shared_server, open_page):
    page = open_page(shared_server.url)
    page.add_init_script(SHARES)
    page.reload()
    finished(generate(page, "to be shared")).locator(".tile-open").first.click()
    page.locator(".viewer-title", has_text="to be shared").wait_for()
    page.get_by_role("button", name="Share", exact=True).click()
    until(lambda: page.evaluate("Boolean(window.shared)"))
    name, size = page.evaluate("window.shared")
    assert name.startswith("unclip-to-be-shared-")
    assert size > 1000
