"""Takes the pictures of docs/page.md: the page in a real Chromium before a real server, with the shipped model.

    python scripts/page_shots.py --out docs/page [--data folder] [--only editor,phone]

Prompts and seeds are fixed and nothing is picked by hand; what a picture shows is the first that came. With --data the
server keeps what it painted in that folder, and a second run paints only what is new. It needs a Chromium or Chrome.
"""

import argparse
import io
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

SEED = 7
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
LARGEST = 300_000  # bytes of a file
COLOURS = 256
PATIENCE = 300_000  # ms that painting may take on a slow machine

OBJECTS = ("a 3d render of a tangerine", "a flat icon of a rocket", "a noto emoji of a cactus", "a twemoji of a red heart")


class Studio:
    """A browser before a server, and what has been painted there so far."""

    def __init__(self, browser: Browser, url: str, out: Path):
        self.browser, self.url, self.out = browser, url, out

    @contextmanager
    def page(self, place: str = "#/", **given: Any) -> Iterator[Page]:
        context = self.browser.new_context(**{**DESK, **given})
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(self.url + place)
        page.wait_for_selector(".composer", state="attached")
        yield page
        context.close()

    def shoot(self, page: Page, name: str) -> None:
        """Keeps what is on the screen."""
        page.mouse.move(5, 5)
        page.wait_for_timeout(600)  # until what fades has faded
        shot = page.screenshot()
        path = self.out / f"{name}.png"
        path.write_bytes(shot if len(shot) <= LARGEST else _smaller(shot))
        print(f"{path}: {path.stat().st_size} bytes")
        assert path.stat().st_size <= LARGEST, "too large to show"

    def made(self, **request: Any) -> list[str]:
        """The pictures of a request: those of an equal job that is done, else painted now."""
        asked = {"n": 4, "seed": SEED, **request}
        api = self.browser.new_context().request
        for job in api.get(f"{self.url}api/jobs?limit=200").json()["jobs"]:
            if job["state"] == "done" and all(job["request"].get(key) == value for key, value in asked.items()):
                return job["images"]
        job = api.post(f"{self.url}api/jobs", data=asked).json()
        while job["state"] not in ("done", "failed", "cancelled"):
            time.sleep(0.5)
            job = api.get(f"{self.url}api/jobs/{job['id']}").json()
        assert job["state"] == "done", job["error"]
        return job["images"]

    def forget(self, prompt: str) -> None:
        """Stops what a prompt asked for and takes it out of the history."""
        api = self.browser.new_context().request
        for job in api.get(f"{self.url}api/jobs?limit=200").json()["jobs"]:
            if job["request"]["prompt"] == prompt:
                api.delete(f"{self.url}api/jobs/{job['id']}")

    def objects(self) -> list[list[str]]:
        return [self.made(task="generate", prompt=prompt) for prompt in OBJECTS]


def create(studio: Studio) -> None:
    studio.objects()
    with studio.page() as page:
        page.locator(".tile[data-state=done] >> nth=3").wait_for()
        _set(page, steps=100)
        page.fill("#prompt", "a 3d render of a hot air balloon")
        page.keyboard.press("Control+Enter")
        card = page.locator(".card", has_text="a hot air balloon").first
        while float(card.locator(".card-progress").evaluate("bar => bar.value")) < 0.45:
            page.wait_for_timeout(100)
        studio.shoot(page, "create")
    studio.forget("a 3d render of a hot air balloon")


def viewer(studio: Studio) -> None:
    made = studio.objects()[1][0]
    with studio.page(f"#/image/{made}") as page:
        page.locator(".details dt").first.wait_for()
        page.get_by_role("button", name="How it is downloaded").click()
        page.locator("#viewer-signature").check()
        studio.shoot(page, "viewer")


def editor(studio: Studio) -> None:
    made = studio.objects()[0][0]
    with studio.page(f"#/edit/{made}", color_scheme="dark") as page:
        page.wait_for_selector("#edit[data-state=ready]")
        page.fill("#editor-prompt", "a 3d render of a tangerine with a face")
        _stroke(page, (-70, 40), (70, 60))
        _stroke(page, (-60, 90), (60, 90))
        studio.shoot(page, "editor")


def outpaint(studio: Studio) -> None:
    made = studio.objects()[3][0]
    with studio.page() as page:
        _set(page)
        page.goto(f"{studio.url}#/edit/{made}")
        page.wait_for_selector("#edit[data-state=ready]")
        page.keyboard.press("f")
        page.focus("canvas.plane")
        for _ in range(2):
            page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("0")
        page.fill("#editor-prompt", "two twemoji of red hearts")
        page.keyboard.press("Enter")
        page.wait_for_selector("#edit[data-state=choosing]")
        studio.shoot(page, "outpaint")


def blend(studio: Studio) -> None:
    (one, *_), (other, *_), *_ = studio.objects()
    studio.made(task="interpolate", images=[one, other], frames=9)
    with studio.page() as page:
        card = page.locator(".card", has_text="Between 2 pictures").first
        card.locator(".flip-frame img >> nth=8").wait_for()
        card.locator("input[type=range]").fill("4")
        page.evaluate("document.activeElement.blur(), document.querySelector('.card:has(.flip)').scrollIntoView()")
        studio.shoot(page, "blend")


def words(studio: Studio) -> None:
    made = studio.objects()[3][0]
    studio.made(task="text_diff", images=[made], old="a red heart", new="a blue heart", theta=[0.075, 0.15, 0.225, 0.3])
    with studio.page() as page:
        page.locator(".card", has_text="a red heart → a blue heart").first.get_by_role(
            "button", name="Reuse settings"
        ).click()
        page.click("summary")
        page.evaluate("scrollTo(0, 0)")
        page.locator(".attached-picture img").wait_for()
        studio.shoot(page, "words")


def collections(studio: Studio) -> None:
    fruits, rockets, cacti, hearts = studio.objects()
    api = studio.browser.new_context().request
    for each in api.get(f"{studio.url}api/collections").json()["collections"]:
        api.delete(f"{studio.url}api/collections/{each['id']}")
    for name, images in (
        ("Fruit and flowers", [fruits[0], cacti[1], fruits[2], cacti[3]]),
        ("Rockets", rockets),
        ("Hearts", hearts[:3]),
    ):
        made = api.post(f"{studio.url}api/collections", data={"name": name}).json()
        for image in images:
            api.post(f"{studio.url}api/collections/{made['id']}/images/{image}")
    with studio.page("#/collections") as page:
        page.locator(".collection >> nth=2").wait_for()
        studio.shoot(page, "collections")


def queue(studio: Studio) -> None:
    studio.objects()
    waiting = ("a noto emoji of an owl", "a flat icon of a violin", "a 3d render of a lighthouse")
    with studio.page() as page:
        _set(page)
        for prompt in waiting:
            page.fill("#prompt", prompt)
            page.keyboard.press("Control+Enter")
            page.locator(".card", has_text=prompt).first.wait_for()
        page.locator(".card .growing .preview:visible").first.wait_for()
        page.click(".queue-opener")
        studio.shoot(page, "queue")
    for prompt in waiting:
        studio.forget(prompt)


def phone(studio: Studio) -> None:
    made = studio.objects()[0][1]
    with studio.page(f"#/image/{made}", **PHONE) as page:
        page.locator(".details dt").first.wait_for()
        studio.shoot(page, "phone")


def dark(studio: Studio) -> None:
    made = studio.objects()[2][0]
    studio.made(task="variations", images=[made])
    with studio.page(color_scheme="dark") as page:
        page.locator(".tile[data-state=done] >> nth=3").wait_for()
        studio.shoot(page, "dark")


def search(studio: Studio) -> None:
    """On a server of its own, over an index of what was painted."""
    with tempfile.TemporaryDirectory() as folder:
        pictures, index = Path(folder) / "pictures", Path(folder) / "pictures.index"
        pictures.mkdir()
        api = studio.browser.new_context().request
        for prompt, images in zip(OBJECTS, studio.objects(), strict=True):
            for number, image in enumerate(images):
                name = f"{prompt.rpartition(' ')[2]}-{number + 1}"
                (pictures / f"{name}.png").write_bytes(api.get(f"{studio.url}api/images/{image}").body())
                (pictures / f"{name}.txt").write_text(prompt)
        indexing = "from unclip.cli.search import app; app()"
        subprocess.run([sys.executable, "-c", indexing, "index", str(pictures), "--out", str(index)], check=True)
        with served(Path(folder) / "data", "--model", "stub", "--index", str(index)) as url:
            found = Studio(studio.browser, url, studio.out)
            with found.page("#/search?words=a+round+orange+fruit") as page:
                page.locator(".found .tile[data-state=done]").first.wait_for()
                page.locator(".found button").first.click()
                page.get_by_role("button", name="More like this").click()
                page.locator("#search .attached-picture").wait_for()
                page.fill("#search-words", "a red heart")
                page.keyboard.press("Enter")
                page.locator(".search-status", has_text="nearest").wait_for()
                studio.shoot(page, "search")


SHOTS: tuple[Callable[[Studio], None], ...] = (
    create,
    viewer,
    editor,
    outpaint,
    blend,
    words,
    collections,
    queue,
    phone,
    dark,
    search,
)


def _smaller(shot: bytes) -> bytes:
    """A screenshot in 256 colours: those that the page itself is made of as they are, the others of its pictures nearly."""
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    counted = Counter(struct.iter_unpack("BBB", image.tobytes()))
    own = [channel for colour, _ in counted.most_common(COLOURS // 2) for channel in colour]
    others = image.quantize(COLOURS // 2, Image.Quantize.MAXCOVERAGE, kmeans=3).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette((own + others)[: 3 * COLOURS])
    buffer = io.BytesIO()
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _set(page: Page, **settings: int) -> None:
    """Settings of the prompt box, which hold in the editor too; the seed is ours unless they say another."""
    page.click("summary")
    for name, value in {"seed": SEED, **settings}.items():
        page.fill(f"#field-{name}", str(value))
    page.click("summary")


def _stroke(page: Page, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Paints a line of the mask, from and to places about the middle of the canvas."""
    box = page.locator("canvas.plane").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x + start[0], y + start[1])
    page.mouse.down()
    page.mouse.move(x + end[0], y + end[1], steps=8)
    page.mouse.up()


@contextmanager
def served(data: Path, *options: str) -> Iterator[str]:
    """The shipped model's server, unless options say otherwise, until the block ends; its address."""
    command = [
        sys.executable,
        "-c",
        "from unclip.cli.serve import app; app()",
        "--quiet",
        "--port",
        "0",
        "--data",
        str(data),
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().rstrip("/") + "/"
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/page"))
    parser.add_argument("--data", type=Path, help="folder of the server's pictures; a temporary one unless given")
    parser.add_argument("--only", help="names of shots, separated by commas")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else [shot.__name__ for shot in SHOTS]
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("there is no Chromium or Chrome on the PATH")
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, served(given.data or Path(folder)) as url, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        studio = Studio(browser, url, given.out)
        for shot in SHOTS:
            if shot.__name__ in wanted:
                shot(studio)
        browser.close()


if __name__ == "__main__":
    main()
