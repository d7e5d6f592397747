"""What is done with pictures: viewing, variations, blending, collecting, uploading; by mouse and by keyboard alone."""

import io

from conftest import downloaded, finished, generate, until
from PIL import Image
from playwright.sync_api import expect


def upload(page, colour: str, size=(64, 64)) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    before = page.locator(".attached-picture").count()
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    until(lambda: page.locator(".attached-picture").count() == before + 1)


def test_the_viewer_says_what_a_picture_is_and_the_keys_work(shared_server, open_page):
    page = open_page(shared_server.url)
    card = finished(generate(page, "to be looked at"))
    card.get_by_role("button", name="Open picture 2 of 4").click()
    until(lambda: "Picture 2 of 4" in page.locator(".viewer-panel").inner_text())
    expect(page.locator(".viewer-title")).to_have_text("to be looked at", use_inner_text=True)
    page.keyboard.press("ArrowRight")
    until(lambda: "Picture 3 of 4" in page.locator(".viewer-panel").inner_text())
    seed = int(card.locator(".card-meta").inner_text().rsplit("seed ", 1)[1])
    expect(page.locator(".details")).to_contain_text(f"Seed\n{seed + 2}", use_inner_text=True)
    picture = downloaded(page, lambda: page.keyboard.press("d"))
    assert picture.size == (256, 256)
    page.keyboard.press("Escape")
    until(lambda: page.evaluate("location.hash") in ("", "#/"))
    expect(page.locator(".viewer")).to_be_hidden()
    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        card.get_by_role("button", name="Open picture 1 of 4").click()
        until(lambda: "Picture 1 of 4" in page.locator(".viewer-panel").inner_text())
        page.keyboard.press("v")
    assert sent.value.post_data_json["task"] == "variations"
    finished(page.locator(".card", has_text="Variations of a picture").first)


def test_back_and_a_bookmark_open_and_close_the_viewer(shared_server, open_page):
    page = open_page(shared_server.url)
    finished(generate(page, "with an address")).get_by_role("button", name="Open picture 1 of 4").click()
    page.locator(".viewer-stage img").first.wait_for()
    address = page.url
    page.go_back()
    until(lambda: not page.locator(".viewer").is_visible())
    again = open_page(address)
    again.locator(".viewer-title", has_text="with an address").wait_for()


def test_two_pictures_blend_under_a_slider(shared_server, open_page):
    page = open_page(shared_server.url)
    upload(page, "red")
    upload(page, "blue")
    page.locator("#field-frames").fill("5")
    page.click(".submit")
    card = page.locator(".card", has_text="Between 2 pictures").first
    until(lambda: card.locator(".flip-frame img").count() == 5)
    until(lambda: card.get_attribute("data-state") == "done")
    card.locator("input[type=range]").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    expect(card.locator("input[type=range]")).to_have_attribute("aria-valuetext", "Frame 2 of 5")
    expect(card.locator(".flip-stage > img:visible")).to_have_count(1)


def test_a_picture_is_changed_by_words_and_guided_by_words(shared_server, open_page):
    page = open_page(shared_server.url)
    upload(page, "green")
    page.click("label[for=task-text_diff]")
    page.click(".submit")
    page.locator("#error-old").get_by_text("Say what the picture shows now.").wait_for()
    page.fill("#field-old", "a cat")
    page.fill("#field-new", "a dog")
    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        page.click(".submit")
    assert sent.value.post_data_json["old"] == "a cat"
    finished(page.locator(".card", has_text="a cat → a dog").first)
    page.click("label[for=task-image_to_image]")
    card = generate(page, "a cat in oil")
    expect(card.locator(".parents img")).to_have_count(1)
    finished(card)


def test_a_dropped_picture_is_taken_and_a_text_file_is_refused_in_words(shared_server, open_page):
    page = open_page(shared_server.url)
    drop = """async ([name, type, side]) => {
      const canvas = new OffscreenCanvas(side, side); canvas.getContext('2d').fillRect(0, 0, side, side);
      const file = new File([type === 'image/png' ? await canvas.convertToBlob() : 'words'], name, { type });
      const data = new DataTransfer(); data.items.add(file);
      document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, ["a.png", "image/png", 32])
    page.locator(".attached-picture").wait_for()
    page.evaluate(drop, ["notes.txt", "text/plain", 1])
    page.locator("#composer-error").get_by_text("notes.txt is not a PNG, JPEG or WebP picture.").wait_for()


def test_collections_take_show_rename_and_lose(own_server, open_page):
    page = open_page(own_server.url)
    finished(generate(page, "to be kept")).get_by_role("button", name="Open picture 1 of 4").click()
    page.locator(".viewer-title", has_text="to be kept").wait_for()
    page.keyboard.press("c")
    page.fill(".picker input[type=text]", "Kites")
    page.keyboard.press("Enter")
    page.locator(".picker-row", has_text="Kites").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Collections").click()
    page.locator(".collection", has_text="1 picture").click()
    page.fill("#collections .namer input", "Sea")
    page.click("#collections .namer button")
    page.get_by_role("heading", name="Sea").wait_for()
    page.locator("#collections .tile").hover()
    page.get_by_role("button", name="Take picture 1 out").click()
    page.get_by_text("This collection is empty.").wait_for()
    page.get_by_role("button", name="Delete collection").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    page.get_by_text("Nothing is collected yet").wait_for()


def test_a_deleted_job_is_gone_after_asking(own_server, open_page):
    page = open_page(own_server.url)
    card = finished(generate(page, "to be forgotten"))
    card.get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    until(lambda: page.locator(".card").count() == 0)
    page.reload()
    page.locator(".first-steps").wait_for()


def test_everything_by_keyboard_alone(own_server, open_page):
    page = open_page(own_server.url)
    page.keyboard.press("/")
    page.keyboard.type("no mouse at all")
    page.keyboard.press("Control+Enter")
    finished(page.locator(".card").first)
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('tile-open')"):
            break
    opener = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert opener == "Open picture 1 of 4: no mouse at all"
    page.keyboard.press("Enter")
    page.locator(".viewer").wait_for()
    page.keyboard.press("Escape")
    until(lambda: page.evaluate("document.activeElement.getAttribute('aria-label')") == opener)
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    expect(page.locator(".sheet")).to_be_hidden()
