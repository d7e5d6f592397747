"""Search on the page: by words, by a picture, by both; what was found, large, and what is made of it; for everybody."""

import base64
import io
import re

import pytest
import test_access
from conftest import Server, finished, until
from PIL import Image
from playwright.sync_api import expect
from toy_index import Indexed
from toy_search import drawn

axe = test_access.axe
ROWS = 14
KEY = "sk-of-the-test-1234"


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Indexed:
    return Indexed(tmp_path_factory.mktemp("index"))


def options(made: Indexed) -> list[str]:
    given = ["--index", str(made.path), "--index", f"again={made.path}", "device=cpu", "stub_step_seconds=0.01"]
    return [*given, f"clips.photos={made.where}", f"clips.again={made.where}"]


@pytest.fixture(scope="session")
def server(chromium, made, tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("search") / "data", *options(made)).start()
    yield running
    running.kill()


def seek(page, words: str):
    """Looks for words; the tiles, once their pictures are there."""
    page.fill("#search-words", words)
    page.keyboard.press("Enter")
    tiles = page.locator(".found")
    until(lambda: tiles.count() == ROWS and page.locator(".found .tile[data-state=done]").count() == ROWS)
    return tiles


def address(page) -> str:
    return page.evaluate("location.href")


def best(page) -> str:
    return page.locator(".found .found-words").first.inner_text()


def test_there_is_no_tab_without_an_index(shared_server, open_page):
    page = open_page(f"{shared_server.url}#/search")
    page.locator("#create").wait_for()
    expect(page.get_by_role("link", name="Search")).to_be_hidden()
    expect(page.locator("#search")).to_be_hidden()


def test_words_find_and_the_address_finds_again(server, open_page):
    page = open_page(server.url)
    page.get_by_role("link", name="Search").click()
    page.get_by_text(f"{ROWS} pictures to look through, by words, by a picture, or by both.").wait_for()
    page.click(".submit >> visible=true")
    page.get_by_text("Say what to look for, or add a picture.").wait_for()
    tiles = seek(page, "a red disc")
    status = re.compile(f"^The nearest {ROWS} of {ROWS} pictures, in ")
    expect(page.locator(".search-status")).to_have_text(status, use_inner_text=True)
    scores = [float(tile.locator(".found-meta span").first.inner_text()) for tile in tiles.all()]
    assert scores == sorted(scores, reverse=True)
    words = page.locator(".found-words").all_inner_texts()
    assert {"a red disc", "two green stars", "film.mp4"} <= {word.rpartition("/")[2] for word in words}
    expect(page.locator(".found", has_text="film.mp4").get_by_text("0:01")).to_have_count(1)
    page.reload()
    until(lambda: page.locator(".found").count() == ROWS)
    expect(page.locator("#search-words")).to_have_value("a red disc")
    expect(page.locator(".found-words")).to_have_text(words, use_inner_text=True)
    seek(page, "a blue square")
    page.go_back()
    until(lambda: page.locator(".found-words").all_inner_texts() == words)
    page.get_by_role("link", name="Collections").click()
    page.get_by_role("link", name="Search").click()  # leads back to what was found
    until(lambda: page.locator("#search-words").input_value() == "a red disc")
    expect(page.locator(".found")).to_have_count(ROWS)


def test_a_picture_finds_itself_and_words_may_weigh_against_it(server, open_page):
    page = open_page(f"{server.url}#/search")
    buffer = io.BytesIO()
    drawn(5).save(buffer, "PNG")
    drop = """async (data) => {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const carried = new DataTransfer(); carried.items.add(new File([bytes], "a.png", { type: "image/png" }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
    }"""
    page.evaluate(drop, base64.b64encode(buffer.getvalue()).decode())
    until(lambda: page.locator(".found").count() == ROWS)
    assert best(page).endswith("005.png")
    expect(page.locator(".found-meta span").first).to_have_text("1.000", use_inner_text=True)
    expect(page.locator("#field-weight")).to_be_hidden()
    page.fill("#search-words", "a blue square")
    expect(page.locator("[data-field=weight] .hint")).to_have_text("50 %", use_inner_text=True)
    with page.expect_request("**/api/search") as sent:
        page.locator("#field-weight").fill("0.8")
    asked = sent.value.post_data_json
    assert (asked["text"], asked["weight"], bool(asked["image"])) == ("a blue square", 0.8, True)
    with page.expect_response("**/api/search"):
        page.reload()
    expect(page.locator("#field-weight")).to_have_value("0.8")
    page.locator(".attached-picture img").wait_for()
    page.get_by_role("button", name="Take the picture out").click()
    until(lambda: "picture=" not in address(page))
    expect(page.locator("#field-weight")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "search-words"


def test_a_text_file_is_refused_in_words(server, open_page):
    page = open_page(f"{server.url}#/search")
    page.set_input_files("input[type=file]", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"})
    page.locator("#search").get_by_text("notes.txt is not a PNG, JPEG or WebP picture.").wait_for()


def test_a_result_is_opened_passed_on_and_closed(server, open_page):
    page = open_page(f"{server.url}#/search")
    tiles = seek(page, "a cat on a mat")
    opener = tiles.nth(1).locator("button")
    opener.click()
    panel = page.locator(".found-viewer .viewer-panel")
    panel.get_by_text(f"Result 2 of {ROWS}").wait_for()
    assert "&open=" in address(page)
    page.keyboard.press("ArrowRight")
    panel.get_by_text(f"Result 3 of {ROWS}").wait_for()
    third = address(page)
    page.keyboard.press("Escape")
    until(lambda: "&open=" not in address(page))
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == opener.get_attribute("aria-label")
    opener.click()
    panel.get_by_text(f"Result 2 of {ROWS}").wait_for()
    page.go_back()
    until(lambda: not page.locator(".found-viewer").is_visible())
    again = open_page(third)
    again.locator(".found-viewer").get_by_text(f"Result 3 of {ROWS}").wait_for()
    shown = again.locator(".found-viewer .viewer-title").inner_text()
    again.keyboard.press("m")
    until(lambda: again.locator(".attached-picture img").is_visible() and best(again) == shown)
    expect(again.locator(".found-viewer")).to_be_hidden()
    expect(again.locator(".found-meta span").first).to_have_text("1.000", use_inner_text=True)
    again.reload()
    until(lambda: again.locator(".found").count() == ROWS and best(again) == shown)


def test_a_result_becomes_variations_or_goes_to_the_editor_or_the_prompt_box(server, open_page):
    page = open_page(f"{server.url}#/search")
    seek(page, "a cat")
    page.locator(".found button").first.click()
    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        page.get_by_role("button", name="Variations").last.click()
    assert (sent.value.post_data_json["task"], len(sent.value.post_data_json["images"])) == ("variations", 1)
    finished(page.locator(".card", has_text="Variations of a picture").first)
    expect(page.locator(".found-viewer")).to_be_hidden()
    page.go_back()  # to the picture that it was made of
    page.locator(".found-viewer").wait_for()
    with page.expect_event("requestfinished", lambda request: "/api/images" in request.url):
        page.keyboard.press("e")
    page.wait_for_selector("#edit[data-state=ready]")
    page.goto(f"{server.url}#/search?words=a+cat")
    page.locator(".found button").first.click()
    page.get_by_role("button", name="Use in the prompt box").last.click()
    page.locator("#composer .attached-picture img").wait_for()


def test_what_was_made_finds_what_is_like_it(server, open_page):
    page = open_page(server.url)
    page.fill("#prompt", "like nothing else")
    page.press("#prompt", "Control+Enter")
    finished(page.locator(".card", has_text="like nothing else").first)
    page.get_by_role("button", name="Open picture 1 of 4: like nothing else").click()
    page.get_by_role("button", name="Find similar pictures").click()
    until(lambda: page.locator(".found").count() == ROWS)
    assert "picture=" in address(page)
    expect(page.locator("#search .attached-picture img")).to_be_visible()


def test_a_file_that_is_gone_is_told_in_words(server, made, open_page):
    path = made.pictures / "006.png"
    content = path.read_bytes()
    path.unlink()
    try:
        page = open_page(f"{server.url}#/search?words=a+star", expected="404")
        page.get_by_text("Not there any more").wait_for()
        expect(page.locator(".found")).to_have_count(ROWS)
    finally:
        path.write_bytes(content)


def test_another_index_is_asked_at_once(server, open_page):
    page = open_page(f"{server.url}#/search")
    seek(page, "a cat")
    with page.expect_request("**/api/search") as sent:
        page.get_by_label("Where to look").select_option("again")
    assert (sent.value.post_data_json["index"], sent.value.post_data_json["text"]) == ("again", "a cat")
    until(lambda: "index=again" in address(page))


def test_it_works_with_a_key_and_says_when_the_server_cannot(made, tmp_path, chromium, open_page):
    running = Server(tmp_path / "data", *options(made), "--api-key", KEY).start()
    try:
        page = open_page(f"{running.url}#/search", expected="Failed to load resource")
        page.fill("#api-key", KEY)
        page.keyboard.press("Enter")
        seek(page, "a cat")
        page.locator(".found button").first.click()
        page.locator(".found-viewer .viewer-stage img").first.wait_for()
        page.keyboard.press("Escape")
        page.route("**/api/search", lambda route: route.abort())
        page.fill("#search-words", "a dog")
        page.keyboard.press("Enter")
        page.get_by_text("The server does not answer.").first.wait_for()
        page.unroute("**/api/search")
        page.keyboard.press("Enter")
        until(lambda: page.locator(".found").count() == ROWS)
    finally:
        running.kill()


def test_by_keyboard_alone(server, open_page):
    page = open_page(f"{server.url}#/search")
    page.keyboard.press("/")
    page.keyboard.type("no mouse at all")
    page.keyboard.press("Enter")
    until(lambda: page.locator(".found .tile[data-state=done]").count() == ROWS)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('tile-open')"):
            break
    name = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert name.startswith("Open result 1: ")
    assert ", similarity 0." in name or ", similarity -0." in name
    page.keyboard.press("Enter")
    page.locator(".found-viewer").wait_for()
    page.keyboard.press("?")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    until(lambda: page.evaluate("document.activeElement.getAttribute('aria-label')") == name)
    page.keyboard.press("?")
    page.get_by_text("Neighbours of an open result").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(server, open_page, axe, scheme):
    page = open_page(f"{server.url}#/search", color_scheme=scheme, reduced_motion="reduce")
    for shown in ("empty", "mixed", "large"):
        if shown == "mixed":
            seek(page, "a cat")
            page.locator(".found button").first.click()
            page.keyboard.press("m")
            page.locator("#search .attached-picture img").wait_for()
            seek(page, "a dog")
        if shown == "large":
            page.locator(".found button").first.click()
            page.locator(".found-viewer .details dd").first.wait_for()
        page.wait_for_timeout(300)
        page.evaluate(axe)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)")
        serious = [
            (fault["id"], fault["nodes"][0]["html"][:200]) for fault in found if fault["impact"] in ("serious", "critical")
        ]
        assert serious == [], shown


def test_a_phone_never_scrolls_sideways(server, open_page):
    page = open_page(f"{server.url}#/search", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    for large in (False, True):
        seek(page, "a word that is verylongandwillnotbreakbyitselfwhateverhappenstoit") if not large else None
        if large:
            page.locator(".found button").first.click()
            page.locator(".found-viewer .details dd").first.wait_for()
        wide = page.evaluate("""() => [...document.querySelectorAll('dialog[open] *, main:not([hidden]) *, header *')]
          .filter((each) => each.checkVisibility() && each.getBoundingClientRect().right > 361)
          .map((each) => each.className)""")
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_pictures_fill_their_tiles(server, open_page):
    page = open_page(f"{server.url}#/search")
    tile = seek(page, "a cat").first.locator(".tile")
    shot = Image.open(io.BytesIO(tile.screenshot()))
    assert shot.width == shot.height > 150
