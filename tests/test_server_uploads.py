"""Pictures that are meant to hurt, and odd ones that are legal."""

import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from live_server import Live, live, picture, png
from PIL import Image, ImageOps

from unclip.server import uploads
from unclip.server.errors import ApiError
from unclip.server.uploads import SIGNATURE, chunk, read_any, read_png

FOUR = {"message", "type", "param", "code"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with live(tmp_path_factory.mktemp("server")) as running:
        yield running


def header(width: int, height: int, bits: int = 8, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, interlaced))


def whole(*parts: bytes) -> bytes:
    return SIGNATURE + b"".join(parts) + chunk(b"IEND", b"")


def inflating(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def resident(which: str) -> int:
    """Bytes of this process, the server's too: VmRSS is now, and the peak, VmHWM, begins anew when that is asked for."""
    if which == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/status").read_text().partition(f"{which}:")[2].split()[0]) << 10


def saved(kind: str, **how) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(buffer, kind, **how)
    return buffer.getvalue()


BOMB = inflating(200)
SMALL = png()
DATA = chunk(b"IDAT", zlib.compress(bytes(100_000)))
BAD = {
    "a billion pixels": whole(header(30_000, 30_000), DATA),
    "two headers": whole(header(64, 64), header(30_000, 30_000), DATA),
    "no pixels": whole(header(0, 0), DATA),
    "no data": whole(header(64, 64)),
    "little data": whole(header(64, 64), chunk(b"IDAT", zlib.compress(b"abc"))),
    "cut": SMALL[:-20],
    "cut short": SMALL[:40],
    "a wrong crc": SMALL[:-14] + bytes(2) + SMALL[-12:],
    "chunks and chunks": SMALL[:33] + chunk(b"prVt", b"") * 300_000 + SMALL[33:],
    "nothing": b"",
    "a jpeg by the name of a png": saved("JPEG"),
    "not square": png((64, 48)),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30000 30000\n",
    "tiff": b"II*\0\x08\0\0\0" + bytes(100),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_refused_at_once_and_in_our_words(server, name):
    before, since = resident("VmRSS"), time.process_time()  # of all threads: the server's too
    answer = server.form("variations", BAD[name])
    assert time.process_time() - since < 0.2
    assert resident("VmHWM") - before < 64 << 20
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == FOUR
    for word in ("PIL", "Pillow", "0x", "Traceback", "broken", "truncated", "cannot identify", "/etc"):
        assert word not in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_what_would_inflate_beside_the_pixels_never_does(server, name):
    lead = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[name]
    before = resident("VmRSS")
    assert server.form("variations", SMALL[:33] + chunk(name, lead + BOMB) + SMALL[33:], size="256x256").status_code == 200
    assert server.form("variations", whole(header(64, 64), chunk(b"IDAT", BOMB)), size="256x256").status_code == 200
    assert resident("VmHWM") - before < 64 << 20


def odd() -> dict[str, bytes]:
    """PNGs that are odd and legal."""
    noise = Image.effect_noise((32, 32), 80)
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    turned = Image.Exif()
    turned[0x0112] = 6
    made = {}
    kinds = {
        "16 bit grey": (noise.convert("I").point(lambda value: value * 257), {}),
        "palette with clear entries": (noise.convert("P"), {"transparency": bytes(range(256))}),
        "grey": (noise, {}),
        "grey with alpha": (noise.convert("LA"), {}),
        "black and white": (noise.convert("1"), {}),
        "a clear colour": (noise.convert("RGB"), {"transparency": (9, 9, 9)}),
        "moving": (frames[0], {"save_all": True, "append_images": frames[1:]}),
        "a profile": (noise.convert("RGB"), {"icc_profile": bytes(500)}),
        "on its side": (noise.convert("RGB"), {"exif": turned}),
        "one pixel": (Image.new("RGB", (1, 1), "red"), {}),
    }
    for name, (image, how) in kinds.items():
        buffer = io.BytesIO()
        (image.convert("I;16") if image.mode == "I" else image).save(buffer, "PNG", **how)
        made[name] = buffer.getvalue()
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7
    rows = b"".join(b"\0" + row.tobytes() for y, x, down, right in passes for row in colours[y::down, x::right])
    made["interlaced"] = whole(header(16, 16, interlaced=1), chunk(b"IDAT", zlib.compress(rows)))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours.astype(np.uint16) * 257)
    made["16 bit colour"] = whole(header(16, 16, bits=16), chunk(b"IDAT", zlib.compress(rows)))
    return made


@pytest.mark.parametrize("name", odd())
def test_odd_but_legal_pictures_are_read_as_pillow_reads_them(server, name):
    data = odd()[name]
    ours = read_png(data, "image", 1 << 22).image
    theirs = ImageOps.exif_transpose(picture(data))
    theirs = theirs.point(lambda value: value / 257).convert("L") if theirs.mode.startswith("I") else theirs
    expected = theirs.convert(ours.mode)
    if min(expected.size) < uploads.SMALLEST:
        expected = expected.resize(ours.size, Image.Resampling.NEAREST)
    assert ours.mode in ("RGB", "RGBA")
    difference = max(abs(a - b) for a, b in zip(ours.tobytes(), expected.tobytes(), strict=True))
    assert difference <= (1 if name == "16 bit grey" else 0)
    assert server.form("variations", data, size="256x256").status_code == 200


def test_jpeg_and_webp_are_for_the_page_and_as_bounded(server):
    good = [saved("JPEG"), saved("JPEG", progressive=True), saved("WEBP"), saved("WEBP", lossless=True)]
    for data in good:
        assert read_any(data).image.size == (64, 48)
        assert server.http.post("/api/images", content=data).status_code == 201
    jpeg, webp = good[1], saved("WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48), "red")])
    scan = jpeg.rindex(b"\xff\xda")
    frame = jpeg.index(b"\xff\xc2")
    large = jpeg[: frame + 5] + struct.pack(">HH", 60_000, 60_000) + jpeg[frame + 9 :]
    canvas = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\xff\x3f\0\xff\x3f\0" + bytes(40)
    for bad in (jpeg[:-2] + jpeg[scan:-2] * 60, large, jpeg[: scan // 2], webp, canvas, good[3][:60], b"GIF89a" + bytes(60)):
        with pytest.raises(ApiError):
            read_any(bad)


def test_a_full_disk_refuses_a_picture_keeps_the_others_and_is_over_when_there_is_room(server: Live, monkeypatch):
    kept = server.http.post("/api/images", content=SMALL).json()["id"]
    files = sorted(server.store.data.rglob("*.png"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for answer in (server.http.post("/api/images", content=SMALL), server.form("variations", SMALL, size="256x256")):
            assert answer.status_code == 500
            assert set(answer.json()["error"]) == FOUR
            assert "space" not in answer.text
        assert server.http.get(f"/api/images/{kept}").status_code == 200
    assert sorted(server.store.data.rglob("*.png")) == files
    assert not list((server.store.data / "images").rglob(".*"))
    assert server.http.post("/api/images", content=SMALL).status_code == 201
    assert server.form("variations", SMALL, size="256x256").status_code == 200


def test_many_bad_pictures_at_once_leave_others_alone(server: Live):
    threads = [threading.Thread(target=server.form, args=("variations", BAD["chunks and chunks"])) for _ in range(6)]
    for thread in threads:
        thread.start()
    since = time.perf_counter()
    assert server.http.get("/healthz").status_code == 200
    assert time.perf_counter() - since < 1.0
    for thread in threads:
        thread.join()
