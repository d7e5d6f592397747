"""A real server with the model that paints by arithmetic, and a real Chromium before it.

They need a Chromium or Chrome of the system's and npm, and are run by `make test-page`, apart from the others.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
QUICK = 20_000  # ms that anything on the page may take here
expect.set_options(timeout=QUICK)
STEP = 0.12  # seconds of a step of the stub, which takes ten


class Server:
    """`unclip serve` in a process of its own, that can be killed and started again on the same port and data."""

    def __init__(self, data: Path, *options: str):
        self.data, self.options, self.port = data, options, 0
        self._process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> "Server":
        code = "from unclip.cli.serve import app; app()"
        command = [
            sys.executable,
            "-c",
            code,
            "--model",
            "stub",
            "--quiet",
            "--data",
            str(self.data),
            "--port",
            str(self.port),
        ]
        self._process = subprocess.Popen(
            [*command, *self.options], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().rsplit(":", 1)[1])
        return self

    def kill(self) -> None:
        """As a power cut does, workers and all."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    assert CHROMIUM is not None, "the page's tests need a Chromium or Chrome on the PATH"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_server(chromium, tmp_path_factory) -> Iterator[Server]:
    """For tests that make their own jobs and leave others' alone."""
    # The second model is never painted with; it has a vocabulary to count by.
    server = Server(tmp_path_factory.mktemp("page") / "data", f"stub_step_seconds={STEP}", "models.icons=icons").start()
    yield server
    server.kill()


@pytest.fixture
def own_server(chromium, tmp_path) -> Iterator[Server]:
    """For a test that kills it, or counts what it holds."""
    server = Server(tmp_path / "data", "stub_step_seconds=0.3").start()
    yield server
    server.kill()


@pytest.fixture
def keyed_server(chromium, tmp_path) -> Iterator[Server]:
    """One that wants the key sk-of-the-test-1234."""
    server = Server(tmp_path / "data", "--api-key", "sk-of-the-test-1234").start()
    yield server
    server.kill()


@pytest.fixture
def open_page(chromium) -> Iterator:
    """Opens pages of 1280 x 900, or as told, and fails the test for any error that was not expected."""
    contexts, faults = [], []

    def opened(url: str, expected: str = "\0", **given):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **given})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(QUICK)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda said: said.type in ("error", "warning") and expected not in said.text and faults.append(said.text),
        )
        page.goto(url)
        page.wait_for_selector(".composer", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def generate(page, prompt: str, pictures: int = 4, steps: int | None = None):
    """Types a prompt, sends it, and gives the card of the job. `steps`: so many, where it has to be seen growing."""
    if steps is not None:
        page.evaluate("document.querySelector('.settings').open = true")
        page.fill("#field-steps", str(steps))
    page.fill("#prompt", prompt)
    page.press("#prompt", "Control+Enter")
    card = page.locator(".card", has_text=prompt).first
    card.wait_for()
    expect(card.locator(".tile")).to_have_count(pictures)
    return card


def begin_long(page, prompt: str):
    """A job that would take half a minute, once it can be seen growing."""
    card = generate(page, prompt, steps=200)
    card.locator(".growing .preview:visible").first.wait_for()
    return card


def finished(card, pictures: int = 4):
    """Waits until all pictures of a card are there and can be seen."""
    card.locator(f".tiles:has(.tile[data-state=done]:nth-child({pictures}))").wait_for()
    until(lambda: card.locator(".tile[data-state=done]").count() == pictures)
    return card


def until(holds, seconds: float = QUICK / 1000) -> None:
    """Waits for a condition that is not the page's."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.03)


def downloaded(page, press) -> Image.Image:
    """The picture that pressing brings."""
    with page.expect_download() as download:
        press()
    return Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
