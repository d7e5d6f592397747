"""From words to pictures on the page, and what must not get lost on the way."""

import re

import pytest
from conftest import Server, begin_long, finished, generate, until
from playwright.sync_api import expect


def test_words_become_four_pictures_that_grow_out_of_noise(shared_server, open_page):
    page = open_page(shared_server.url)
    card = generate(page, "a red kite over the sea", steps=40)
    card.locator(".growing .preview:visible").first.wait_for()
    expect(page.locator(".queue-opener")).to_be_visible()
    finished(card)
    assert (
        page.evaluate(
            "Math.min(...[...document.querySelectorAll('.card:first-of-type .tile-open img')].map(i => i.naturalWidth))"
        )
        == 256
    )
    expect(card.locator(".card-meta")).to_have_text(re.compile("^From words"), use_inner_text=True)
    until(lambda: not page.locator(".queue-opener").is_visible())
    expect(page.locator("#announcer")).to_have_text("4 pictures are ready: a red kite over the sea", use_inner_text=True)


def test_settings_reach_the_server_and_come_back_by_reuse(shared_server, open_page):
    page = open_page(shared_server.url)
    page.click("summary")
    page.click("label[for=n-2]")
    page.fill("#field-seed", "41")
    page.fill("#field-steps", "4")
    with page.expect_request(lambda request: request.url.endswith("/api/jobs") and request.method == "POST") as sent:
        card = generate(page, "with settings", pictures=2)
    assert sent.value.post_data_json == {"task": "generate", "n": 2, "seed": 41, "steps": 4, "prompt": "with settings"}
    finished(card, 2)
    page.fill("#field-seed", "")
    page.fill("#prompt", "something else")
    card.get_by_role("button", name="Open picture 2 of 2").click()
    page.get_by_role("button", name="Reuse settings").last.click()
    expect(page.locator("#prompt")).to_have_value("with settings")
    expect(page.locator("#field-seed")).to_have_value("42")  # the second picture's own


def test_cancel_stops_and_says_so(own_server, open_page):
    page = open_page(own_server.url)
    card = begin_long(page, "soon not wanted")
    card.get_by_role("button", name="Cancel").click()
    card.get_by_text("Stopped").wait_for()
    expect(card).to_have_attribute("data-state", "cancelled")
    expect(card.locator("progress")).to_be_hidden()
    page.fill("#field-steps", "")
    finished(generate(page, "wanted"))  # nothing is locked after it


def test_a_reload_in_the_middle_loses_nothing(own_server, open_page):
    page = open_page(own_server.url)
    begin_long(page, "over a reload")
    page.fill("#prompt", "half a sen")
    page.reload()
    card = page.locator(".card", has_text="over a reload")
    card.locator(".growing .preview:visible").first.wait_for()
    expect(page.locator("#prompt")).to_have_value("half a sen")
    expect(card.locator("progress")).to_be_visible()


def test_a_lost_connection_is_taken_up_at_the_last_event(own_server, open_page):
    page = open_page(own_server.url, expected="ERR_")
    begin_long(page, "with a gap")
    attached = []
    page.on("request", lambda request: re.search(r"jobs/.+/events$", request.url) and attached.append(request.headers))
    own_server.kill()
    own_server.start()
    until(lambda: page.wait_for_timeout(50) or any(int(headers.get("last-event-id", 0)) > 0 for headers in attached))


def test_a_killed_server_is_told_in_words_and_what_it_made_goes_on(own_server, open_page):
    page = open_page(own_server.url, expected="ERR_")
    card = generate(page, "over a crash", steps=40)
    card.locator(".growing .preview:visible").first.wait_for()
    own_server.kill()
    page.locator("#connection").get_by_text("The server does not answer").wait_for()
    page.fill("#prompt", "while it is away")
    page.press("#prompt", "Control+Enter")
    page.locator("#composer-error").get_by_text("Nothing is lost").wait_for()
    own_server.start()
    finished(card)
    until(lambda: page.locator("#connection").inner_text() == "")
    page.click(".submit")
    page.locator(".card", has_text="while it is away").wait_for()


def test_another_tab_sees_it_at_once(own_server, open_page):
    one, other = open_page(own_server.url), open_page(own_server.url)
    generate(one, "told to both")
    finished(other.locator(".card", has_text="told to both"))


@pytest.mark.parametrize(
    ("answer", "place", "words"),
    [
        (
            {"status": 429, "headers": {"retry-after-ms": "2000"}, "json": {"error": {"message": "The queue is full."}}},
            "#composer-error",
            "Try again in 2 s",
        ),
        (
            {"status": 400, "json": {"error": {"message": "steps must be 1 to 1000", "param": "steps"}}},
            "#error-steps",
            "steps must be 1 to 1000",
        ),
        ({"status": 500, "body": "<b>boom</b>"}, "#composer-error", "Something went wrong on the server."),
        ({"status": 413, "body": ""}, "#composer-error", "larger than the server takes"),
    ],
)
def test_a_refusal_is_told_where_it_happened(shared_server, open_page, answer, place, words):
    page = open_page(shared_server.url, expected="status of")
    page.route("**/api/jobs", lambda route: route.fulfill(**answer) if route.request.method == "POST" else route.continue_())
    page.fill("#prompt", "refused")
    page.press("#prompt", "Enter")
    page.locator(place).get_by_text(words).wait_for()
    expect(page.locator(place)).to_be_visible()
    expect(page.locator("#prompt")).to_have_value("refused")
    expect(page.locator(".submit")).to_be_enabled()


def test_a_refusal_is_told_in_the_models_words(shared_server, open_page):
    page = open_page(shared_server.url)
    card = generate(page, "stub: refuse")
    card.get_by_text("The model cannot do this: the stub was asked to refuse.").wait_for()
    page.reload()
    page.locator(".card", has_text="stub: refuse").get_by_text("the stub was asked to refuse").wait_for()


def test_a_failed_job_says_why(shared_server, open_page):
    page = open_page(shared_server.url)
    card = generate(page, "stub: no memory")
    card.get_by_text("There was not enough memory").wait_for()
    expect(page.locator(".card", has_text="stub: no memory").locator(".card-actions button")).to_have_count(3)


def test_an_empty_prompt_is_not_sent(shared_server, open_page):
    page = open_page(shared_server.url)
    page.click(".submit")
    page.locator("#error-prompt").get_by_text("Say what you would like to see.").wait_for()


def test_markup_in_a_prompt_stays_words(shared_server, open_page):
    page = open_page(shared_server.url)
    prompt = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    card = generate(page, prompt)
    expect(card.locator("h2")).to_have_text(prompt, use_inner_text=True)
    finished(card)
    card.locator(".tile-open").first.click()
    expect(page.locator(".viewer-title")).to_have_text(prompt, use_inner_text=True)
    assert page.title() == "unclip"


def test_surprise_me_and_examples_fill_the_prompt(own_server, open_page):
    page = open_page(own_server.url)
    page.get_by_role("button", name="Surprise me").click()
    until(lambda: page.input_value("#prompt") != "")
    page.locator("button.example").first.click()
    page.locator(".card").wait_for()
    expect(page.locator(".first-steps")).to_be_hidden()


def test_the_queue_lists_and_empties(own_server, open_page):
    page = open_page(own_server.url)
    page.click("summary")
    page.fill("#field-steps", "500")
    for prompt in ("first of three", "second of three", "third of three"):
        generate(page, prompt)
    until(lambda: page.locator("#queue-list li").count() == 3)
    page.click(".queue-opener")
    panel = page.locator("#queue-list")
    panel.get_by_role("button", name="Cancel all").click()
    until(lambda: page.locator(".card[data-state=cancelled]").count() == 3)
    expect(panel).to_be_hidden()


def four_jobs(page) -> None:
    """One that runs for minutes and three that wait, their panel open."""
    page.click("summary")
    page.fill("#field-steps", "500")
    for prompt in ("runs", "waits a", "waits b", "waits c"):
        generate(page, prompt)
    page.click(".queue-opener")
    until(lambda: waiting(page) == ["waits a", "waits b", "waits c"])


def waiting(page) -> list[str]:
    return page.locator("#queue-list li[data-state=queued] .queue-name").all_inner_texts()


@pytest.fixture
def slow_server(chromium, tmp_path):
    """One that paints a picture at a time, so that the others wait."""
    server = Server(tmp_path / "data", "stub_step_seconds=0.3", "batch=1").start()
    yield server
    server.kill()


def test_the_queue_is_put_in_order_by_buttons_keys_and_dragging(slow_server, open_page):
    page = open_page(slow_server.url)
    four_jobs(page)
    page.get_by_role("button", name="Earlier: waits c").click()
    until(lambda: waiting(page) == ["waits a", "waits c", "waits b"])
    until(lambda: "2 of 3 in the queue: waits c" in page.locator("#announcer").inner_text())
    page.keyboard.press("Enter")  # the button still has the focus
    until(lambda: waiting(page) == ["waits c", "waits a", "waits b"])
    page.get_by_role("button", name="Move with the arrow keys: waits b").focus()
    page.keyboard.press("Home")
    until(lambda: waiting(page) == ["waits b", "waits c", "waits a"])
    page.keyboard.press("ArrowDown")
    until(lambda: waiting(page) == ["waits c", "waits b", "waits a"])
    page.locator("li", has_text="waits a").locator(".queue-grip").hover()
    page.mouse.down()
    box = page.locator("li", has_text="waits c").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10, steps=5)
    page.mouse.up()
    until(lambda: waiting(page) == ["waits a", "waits c", "waits b"])

    def places() -> dict:
        jobs = page.request.get(f"{slow_server.url}api/jobs").json()["jobs"]
        return {job["request"]["prompt"]: job["position"] for job in jobs}

    until(lambda: places() == {"runs": None, "waits a": 0, "waits c": 1, "waits b": 2})  # the page was ahead of the server


def test_what_waits_is_cleared_and_what_runs_goes_on(slow_server, open_page):
    page = open_page(slow_server.url)
    four_jobs(page)
    page.get_by_role("button", name="Clear waiting").click()
    until(lambda: page.locator(".card[data-state=cancelled]").count() == 3)
    expect(page.locator(".card[data-state=running]")).to_have_count(1)
    expect(page.locator("#queue-list li")).to_have_count(1)


def test_a_job_that_waits_goes_back_into_the_prompt_box(slow_server, open_page):
    page = open_page(slow_server.url)
    four_jobs(page)
    page.get_by_role("button", name="Back to the prompt box: waits b").click()
    until(lambda: page.input_value("#prompt") == "waits b")
    until(lambda: page.locator(".card", has_text="waits b").count() == 0)
    expect(page.locator("#queue-list")).to_be_hidden()
    card = page.locator(".card", has_text="waits c")
    card.get_by_role("button", name="Back to the prompt box").click()
    until(lambda: page.input_value("#prompt") == "waits c")
    expect(page.locator(".card")).to_have_count(2)


def test_a_job_that_began_meanwhile_is_not_taken_back(shared_server, open_page):
    page = open_page(shared_server.url, expected="409")
    begin_long(page, "was faster")
    outcome = """async () => {
      const { jobs } = await (await fetch('/api/jobs?limit=1')).json();
      return (await fetch(`/api/jobs/${jobs[0].id}/withdraw`, { method: 'POST' })).status;
    }"""
    assert page.evaluate(outcome) == 409
    page.locator(".card", has_text="was faster").get_by_role("button", name="Cancel").click()


def test_one_picture_is_left_out_and_the_others_come(shared_server, open_page):
    page = open_page(shared_server.url)
    card = generate(page, "all but one", steps=40)
    card.locator(".growing .preview:visible").first.wait_for()
    card.get_by_role("button", name="Leave out picture 2 of 4: all but one").click()
    until(lambda: card.get_attribute("data-state") == "done")
    card.get_by_text("Left out").wait_for()
    until(lambda: card.locator(".tile[data-state=done]").count() == 3)
    page.reload()
    card = page.locator(".card", has_text="all but one")
    until(lambda: card.locator(".tile[data-state=done]").count() == 3)
    expect(card.locator(".tile").nth(1)).to_have_text("Left out", use_inner_text=True)


def test_it_is_said_when_a_job_should_be_done(slow_server, open_page):
    page = open_page(slow_server.url)
    page.click("summary")
    page.click("label[for=n-1]")
    page.fill("#field-steps", "1")
    finished(generate(page, "to learn the pace", pictures=1), 1)
    page.fill("#field-steps", "100")
    running = generate(page, "for half a minute", pictures=1)
    waits = generate(page, "waits for it", pictures=1)
    waits.get_by_text(re.compile("Next in the queue, done in ")).wait_for()
    running.get_by_text(re.compile(r"Painting, done in about \d\d s")).wait_for()


def test_a_killed_server_and_a_reload_lose_neither_the_order_nor_the_holes(slow_server, open_page):
    page = open_page(slow_server.url, expected="ERR_")
    four_jobs(page)
    page.get_by_role("button", name="Earlier: waits c").click()
    page.get_by_role("button", name="Back to the prompt box: waits a").click()
    card = page.locator(".card", has_text="runs")
    card.locator(".tile").nth(2).hover()
    card.get_by_role("button", name="Leave out picture 3 of 4: runs").click()
    card.get_by_text("Left out").wait_for()
    slow_server.kill()
    slow_server.start()
    page.reload()
    card.get_by_text("Left out").wait_for()
    page.click(".queue-opener")
    until(lambda: waiting(page) == ["waits c", "waits b"])
    until(lambda: card.get_attribute("data-state") == "running")
    expect(page.locator("#prompt")).to_have_value("waits a")
    expect(page.locator(".card", has_text="waits a")).to_have_count(0)
    card.locator(".growing .preview:visible").first.wait_for()


def test_a_key_is_asked_for_and_opens_pictures_too(keyed_server, open_page):
    page = open_page(keyed_server.url, expected="401")
    page.fill("#api-key", "sk-wrong-wrong-wrong")
    page.press("#api-key", "Enter")
    page.get_by_text("The server does not know this key.").wait_for()
    page.fill("#api-key", "sk-of-the-test-1234")
    page.press("#api-key", "Enter")
    finished(generate(page, "behind a key"))
    assert page.evaluate("document.querySelector('.tile-open img').naturalWidth") == 256
