"""Pictures that are meant to hurt, and odd ones that are legal, through both doors of a running server (tests 4a and 4b)."""

import io
import struct
import time
import zlib

import numpy as np
from lib.bench import GENERATIONS, Bench, Row, call
from lib.served import Served, forget_peak, peak, resident
from lib.wire import Answer, form
from PIL import Image, ImageOps

SECONDS, MEMORY = 0.2, 64  # of one bad picture; MB
_LIBRARYS = ("PIL", "Pillow", "0x", "Traceback", "broken", "truncated", "cannot identify", "/etc", "zlib", "libpng")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))


def _header(width: int, height: int, *, depth: int = 8, colour: int = 2, interlaced: bool = False) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


def _whole(*parts: bytes) -> bytes:
    return _SIGNATURE + b"".join(parts) + _chunk(b"IEND", b"")


def _saved(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def _bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def _noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8))


def _bad() -> dict[str, bytes]:
    """What no door takes."""
    small, bomb = _saved(_noise()), _bomb(200)
    data = _chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return {
        "30,000 px a side, inflating to 200 MB": _whole(_header(30_000, 30_000), _chunk(b"IDAT", bomb)),
        "two headers": _whole(_header(64, 64), _header(30_000, 30_000), data),
        "no pixels": _whole(_header(0, 0), data),
        "no data": _whole(_header(64, 64)),
        "little data": _whole(_header(64, 64), _chunk(b"IDAT", zlib.compress(b"abc"))),
        "300,000 chunks": small[:33] + _chunk(b"prVt", b"") * 300_000 + small[33:],
        "cut": small[:-20],
        "cut in its header": small[:20],
        "a wrong CRC": small[:-14] + bytes(2) + small[-12:],
        "nothing": b"",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30000 30000\n",
        "tiff": _saved(_noise(), "TIFF"),
        "gif": _saved(_noise(), "GIF"),
    }


def _beside() -> dict[str, bytes]:
    """Legal pictures with a bomb beside the pixels, which nobody needs to read."""
    small, bomb = _saved(_noise()), _bomb(200)
    leads = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}
    return {name.decode(): small[:33] + _chunk(name, lead + bomb) + small[33:] for name, lead in leads.items()}


async def bad_pictures(bench: Bench) -> list[Row]:
    """Each through both doors: 400 at once, in our own words, and without the memory that it asks for."""
    wrong, slowest, most, words, beside, bombs = [], 0.0, 0.0, [], [], _beside()
    only_v1 = {"a JPEG named PNG": _saved(_noise(), "JPEG"), "not square": _saved(Image.new("RGB", (64, 32)))}
    async with bench.served() as server:
        await _warm(server)
        for name, data in {**_bad(), **only_v1, **bombs}.items():
            for answer, seconds, grown in await _sent(server, data, both=name not in only_v1):
                most = max(most, grown)
                if name in bombs:
                    beside += [name] * (answer.status >= 500)
                    continue
                slowest = max(slowest, seconds)
                wrong += [name] * (answer.status != 400)
                words += [name] * any(word in answer.body.decode("utf-8", "replace") for word in _LIBRARYS)
    return [
        Row("4a", f"bad pictures not answered 400 {' '.join(wrong)}".rstrip(), 0, len(wrong)),
        Row("4a", "the slowest answer to one", 1000 * SECONDS, 1000 * slowest, "ms"),
        Row("4a", "the most memory that one takes, or one with a bomb beside its pixels", MEMORY, most, "MB"),
        Row("4a", "answers with a library's words", 0, len(words)),
        Row("4a", "faults by bombs beside the pixels", 0, len(beside)),
    ]


async def _warm(server: Served) -> None:
    """What is loaded with the first picture is no growth."""
    for _ in range(3):
        await _sent(server, _saved(_noise(1024)), both=True)


async def _sent(server: Served, data: bytes, *, both: bool) -> list[tuple[Answer, float, float]]:
    """The answers of the Images API and, if `both`, of the page's door; seconds, and MB that the server grew at most."""
    body, kind = form({"image": ("x.png", data)}, {"size": "256x256"})
    doors = [("/v1/images/variations", body, kind), ("/api/images", data, {})]
    told = []
    for path, content, headers in doors[: 1 + both]:
        forget_peak(server.pid)
        before, began = resident(server.pid), time.perf_counter()
        answer = await server.ask("POST", path, content, headers)
        told.append((answer, time.perf_counter() - began, (peak(server.pid) - before) / (1 << 20)))
    return told


def _odd() -> dict[str, bytes]:
    noise, turned = _noise(32), Image.Exif()
    turned[0x0112] = 6
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    rows = zlib.compress(b"".join(b"\0" + bytes([level] * 3) for level in range(8)))
    return {
        "16 bit": _saved(Image.fromarray(np.asarray(noise).astype(np.uint16) * 257)),
        "interlaced": _whole(_header(1, 1, interlaced=True), _chunk(b"IDAT", rows)),
        "a palette with clear entries": _saved(noise.convert("P"), transparency=bytes(range(256))),
        "grey": _saved(noise),
        "grey with alpha": _saved(noise.convert("LA")),
        "black and white": _saved(noise.convert("1")),
        "a clear colour": _saved(noise.convert("RGB"), transparency=(9, 9, 9)),
        "moving": _saved(frames[0], save_all=True, append_images=frames[1:]),
        "a colour profile": _saved(noise.convert("RGB"), icc_profile=bytes(500)),
        "on its side": _saved(noise.convert("RGB"), exif=turned),
        "one pixel": _saved(Image.new("RGB", (1, 1), "red")),
    }


async def odd_pictures(bench: Bench) -> list[Row]:
    """Stored as Pillow reads them, and painted from."""
    otherwise, refused = [], []
    async with bench.served() as server:
        for name, data in _odd().items():
            id = (await server.ask("POST", "/api/images", data)).json().get("id")
            stored = (await server.ask("GET", f"/api/images/{id}")).body
            otherwise += [name] * (not stored.startswith(_SIGNATURE) or not _alike(stored, data))
            body, kind = form({"image": ("x.png", data)}, {"size": "256x256"})
            refused += [name] * ((await server.ask("POST", "/v1/images/variations", body, kind)).status != 200)
        after = await server.ask("POST", GENERATIONS, call())
    return [
        Row("4b", f"odd pictures read otherwise than by Pillow {' '.join(otherwise)}".rstrip(), 0, len(otherwise)),
        Row("4b", f"odd pictures of which no variation is painted {' '.join(refused)}".rstrip(), 0, len(refused)),
        Row("4b", "the server paints no more after them", 0, after.status != 200),
    ]


def _alike(stored: bytes, sent: bytes) -> bool:
    """Whether a stored picture is what Pillow reads from what was sent: upright, 8 bit, at least 8 px a side."""
    ours, theirs = Image.open(io.BytesIO(stored)), ImageOps.exif_transpose(Image.open(io.BytesIO(sent)))
    if theirs.mode.startswith("I"):
        theirs = Image.fromarray((np.asarray(theirs) // 257).astype(np.uint8))
    theirs = theirs.convert(ours.mode).resize(ours.size, Image.Resampling.NEAREST)
    return ours.mode in ("RGB", "RGBA") and ours.tobytes() == theirs.tobytes()
