"""What the model reads in the words that are typed: told under them, kept quiet, and switched off."""

import io
import re

import pytest
import test_access
from conftest import finished, generate, until
from PIL import Image
from playwright.sync_api import expect

axe = test_access.axe


@pytest.fixture
def worded(shared_server, open_page):
    """Opens a page whose prompts go to the model that comes with words, its settings unfolded."""

    def opened(**given):
        page = open_page(shared_server.url, **given)
        page.click("summary")
        page.select_option("#field-model", "icons")
        return page

    return opened


def lines(page, place: str = "prompt") -> list[str]:
    return page.locator(f"#{place}-read li").all_inner_texts()


def tells(page, *expected: str, place: str = "prompt") -> None:
    until(lambda: lines(page, place) == [*expected])
    expect(page.locator(f"#{place}-read")).to_be_visible(visible=bool(expected))


def described(page, selector: str) -> str:
    """What is read out beside a field's name."""
    ids = page.get_attribute(selector, "aria-describedby").split()
    return " ".join(page.locator(f"#{id}").inner_text() for id in ids)


def test_what_is_read_is_told_while_it_is_typed(worded):
    page = worded()
    page.fill("#prompt", "a flat icon of a cat")
    page.get_by_text("of 22 tokens").wait_for()
    tells(page)
    page.fill("#prompt", "a flat icon of a kitty on a crimson background")
    tells(page, "kitty: read as cat", "crimson: read as red")
    page.fill("#prompt", "a kitty and a zorblax")
    tells(page, "kitty: read as cat", "unknown: zorblax")
    assert "kitty: read as cat" in described(page, "#prompt")
    page.fill("#prompt", " ".join(f"zorblax{letter}x" for letter in "abcdefghij"))
    until(lambda: len(lines(page)) == 1 and lines(page)[0].endswith("zorblaxhx and 2 more"))
    page.fill("#prompt", "")
    tells(page)
    page.fill("#prompt", "a kitty")
    tells(page, "kitty: read as cat")
    page.select_option("#field-model", "dall-e-2")  # which comes without words here
    tells(page)


def test_what_is_left_out_is_of_what_is_read(worded):
    page = worded()
    page.fill("#prompt", "cat " * 21 + "and a kitty")
    page.locator("#prompt-cut s", has_text="a cat").wait_for()


def test_it_is_spoken_once_and_after_the_typing(worded):
    page = worded()
    page.evaluate("""() => {
      window.spoken = [];
      const place = document.getElementById('announcer');
      const hear = () => place.textContent && window.spoken.push(place.textContent);
      new MutationObserver(hear).observe(place, { childList: true });
    }""")
    page.clock.install(time=0)
    page.clock.pause_at(60)  # from now on the page's time stands still, but for what runs here
    said = "kitty: read as cat. unknown: zorblax"
    for typed, count, told, milliseconds, spoken in (
        ("a zorb", 4, ["unknown: zorb"], 1000, []),
        ("lax by a kitty", 9, said.split(". "), 1000, []),
        (" with a hat", 12, said.split(". "), 1000, []),
        ("", 12, said.split(". "), 1000, [said]),
        (" and", 13, said.split(". "), 5000, [said]),
    ):
        page.locator("#prompt").press_sequentially(typed)
        page.clock.run_for(300 if typed else 0)
        page.get_by_text(f"{count} of 22 tokens").wait_for()
        tells(page, *told)
        page.clock.run_for(milliseconds)
        assert page.evaluate("window.spoken") == spoken
    assert page.get_attribute("#announcer", "aria-live") == "polite"


def test_as_typed_is_a_switch_that_reaches_the_server_and_comes_back(worded, shared_server):
    page = worded()
    page.fill("#prompt", "a kitty on its own")
    tells(page, "kitty: read as cat")
    page.get_by_role("switch", name="As typed").check()
    tells(page)
    expect(page.locator(".settings summary")).to_have_text(re.compile("as typed$"), use_inner_text=True)
    page.select_option("#field-model", "dall-e-2")
    page.fill("#field-steps", "4")
    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        card = finished(generate(page, "a kitty on its own"))
    assert sent.value.post_data_json["as_typed"] is True
    page.reload()
    page.click("summary")
    expect(page.get_by_role("switch", name="As typed")).to_be_checked()  # as the rest of the form
    page.get_by_role("switch", name="As typed").uncheck()
    card.get_by_role("button", name="Open picture 1 of 4").click()
    page.locator(".details dt", has_text="Words").wait_for()
    page.get_by_role("button", name="Reuse settings").last.click()
    expect(page.get_by_role("switch", name="As typed")).to_be_checked()
    made = card.locator(".tile-open").first.get_attribute("data-image")
    png = page.request.get(f"{shared_server.url}api/images/{made}").body()
    assert '"as_typed": true' in Image.open(io.BytesIO(png)).info["unclip"]
    page.get_by_role("switch", name="As typed").uncheck()
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": png})
    page.get_by_role("button", name="Reuse its settings").click()
    expect(page.get_by_role("switch", name="As typed")).to_be_checked()


def test_the_viewer_tells_what_a_prompt_was_read_as(worded):
    page = worded()
    page.select_option("#field-model", "dall-e-2")  # which reads nothing itself
    page.fill("#field-steps", "4")
    card = finished(generate(page, "a kitty"))

    def told(route):
        answer = route.fetch().json()
        route.fulfill(json=answer | {"settings": answer["settings"] | {"read": "a cat"}})

    page.route("**/api/images/*/info", told)
    card.get_by_role("button", name="Open picture 1 of 4").click()
    expect(page.locator(".details dt", has_text="Read as").locator("xpath=following-sibling::dd[1]")).to_have_text("a cat")
    page.unroute("**/api/images/*/info")
    page.keyboard.press("Escape")
    card.get_by_role("button", name="Open picture 2 of 4").click()
    page.locator(".details dt", has_text="When").wait_for()
    expect(page.locator(".details dt", has_text="Read as")).to_have_count(0)


def test_a_plain_request_says_nothing_of_it_and_nor_do_variations(worded):
    page = worded()
    page.select_option("#field-model", "dall-e-2")
    page.fill("#field-steps", "4")
    jobs = lambda request: request.url.endswith("/api/jobs") and request.method == "POST"  # noqa: E731
    with page.expect_request(jobs) as sent:
        card = finished(generate(page, "read as ever"))
    assert "as_typed" not in sent.value.post_data_json
    page.get_by_role("switch", name="As typed").check()
    card.locator(".tile-open").first.click()
    with page.expect_request(jobs) as sent:
        page.keyboard.press("v")
    assert sent.value.post_data_json["task"] == "variations"
    assert "as_typed" not in sent.value.post_data_json


def test_captions_of_a_change_and_the_editors_words_are_read_too(worded):
    page = worded()
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (20, 90, 200)).save(buffer, "PNG")
    page.set_input_files("input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    page.get_by_text("Change by words").click()
    page.fill("#field-old", "a kitty")
    page.fill("#field-new", "a dog in a zorblax")
    tells(page, "kitty: read as cat", place="old")
    tells(page, "unknown: zorblax", place="new")
    assert "kitty: read as cat" in described(page, "#field-old")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.wait_for_selector("#edit[data-state=ready]")
    page.fill("#editor-prompt", "a kitty")
    tells(page, "kitty: read as cat", place="editor")
    page.go_back()
    page.get_by_role("switch", name="As typed").check()
    tells(page, place="old")
    page.go_forward()
    tells(page, place="editor")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_what_is_told(worded, axe, scheme):
    page = worded(color_scheme=scheme, reduced_motion="reduce")
    page.fill("#prompt", "a kitty and a zorblax")
    tells(page, "kitty: read as cat", "unknown: zorblax")
    page.evaluate(axe)
    found = page.evaluate("axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)")
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []


def test_a_phone_is_wide_enough_for_it(worded):
    page = worded(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.fill("#prompt", f"a kitty, a crimson automobile, a motorcar, a pooch and a {'zorblax' * 9}")
    until(lambda: len(lines(page)) >= 3)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#prompt-read").evaluate("each => each.scrollWidth <= each.clientWidth")
