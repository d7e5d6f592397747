"""A stranger's bytes as a picture, in a way that no bomb can hurt.

What a file is, is told by its first bytes, never by its name or its declared type. Its size is read off its header before
anything is unpacked. A PNG is taken apart and put together again from what a picture needs, its CRCs checked on the way: so
no text, colour profile or animation frame is ever decompressed, and Pillow inflates at most what the header promised, row
by row. JPEG and WebP are read for the page only: the size off the frame header, few scans, no animation.

These bounds make decoding in this process safe: at most 16.8 million pixels, which takes well under a second and 64 MB for
each copy, in one of two threads. A process for each picture would cost more than the decoding of an honest one.

Letters of a picture's life: bytes -> Upload (upright RGB or RGBA, 8 bit, nothing else kept) -> PNG in the store.
"""

import asyncio
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from unclip.server.errors import ApiError

T = TypeVar("T")

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_PIXELS = 1 << 24
LARGEST = 16_384  # px a side
SMALLEST = 8  # px a side; a smaller picture is enlarged to it, since the models read none that is smaller
OPAQUE = 128  # alpha below this is transparent: repaint there

_MOST_CHUNKS = 20_000
_MOST_SCANS = 32  # of a progressive JPEG; honest ones have about ten
_MOST_EXIF = 1 << 16
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_MAGIC = (
    (SIGNATURE, "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%!PS", "application/postscript"),
    (b"%PDF", "application/pdf"),
    (b"<svg", "image/svg+xml"),
    (b"<?xml", "image/svg+xml"),
)
_NAMES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


class Upload(NamedTuple):
    """A picture as it came in."""

    image: Image.Image  # RGB, or RGBA where the file had transparency
    mode: str  # Pillow's name of the file's pixels


class Decoder:
    """Decodes and packs pictures off the event loop, in two threads of its own.

    Of its own, because what a picture needs stays with the thread that had it first: of the loop's threads, each would
    hold the memory of the largest picture that it ever met.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pictures")

    async def png(self, data: bytes, param: str, limit: int) -> Upload:
        """A PNG of less than `limit` bytes, as /v1 takes them; ApiError 400 that names `param`."""
        return await self._run(partial(read_png, data, param, limit))

    async def any(self, data: bytes) -> Upload:
        """A PNG, JPEG or WebP of any size that is within bounds; ApiError 400."""
        return await self._run(partial(read_any, data))

    async def pack(self, image: Image.Image) -> bytes:
        """A picture's pixels as a PNG with nothing else in it; packed fast rather than small."""
        return await self._run(partial(_pack, image))

    def close(self) -> None:
        """Lets the threads go when they are done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def read_png(data: bytes, param: str, limit: int) -> Upload:
    """A PNG of less than `limit` bytes; ApiError 400 in OpenAI's words, which names `param`."""
    kind = sniff(data)
    if kind is not None and kind != "image/png":
        message = f"Invalid file '{param}': unsupported mimetype ('{kind}'). Supported file formats are 'image/png'."
        raise ApiError(400, message, param=param)
    if kind is None or len(data) >= limit:
        raise ApiError(400, "Uploaded image must be a PNG and less than 4 MB.", param=param)
    return _decode(data, kind, param)


def read_any(data: bytes) -> Upload:
    """A PNG, JPEG or WebP; ApiError 400."""
    kind = sniff(data)
    if kind not in _NAMES:
        raise ApiError(400, "The picture cannot be read: expected a PNG, JPEG or WebP.", param="image")
    return _decode(data, kind, "image")


def sniff(data: bytes) -> str | None:
    """The type that the first bytes tell, None for one that nobody draws in."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return "image/heic" if data[8:11] in (b"hei", b"mif", b"hev") else "image/avif"
    start = data[:64].lstrip(b"\xef\xbb\xbf \r\n\t")
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), None)


def _pack(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def hole(upload: Upload, param: str) -> Image.Image:
    """What the transparent pixels say is to be repainted: mode L, white there. ApiError 400 if there are none."""
    if "A" not in upload.image.getbands():
        if upload.mode in ("RGB", "P"):
            message = f"Invalid input image - format must be in ['RGBA', 'LA', 'L'], got {upload.mode}."
            raise ApiError(400, message, param=param)
        raise _opaque(param)
    found = upload.image.getchannel("A").point([255 * (alpha < OPAQUE) for alpha in range(256)])
    if found.getbbox() is None:
        raise _opaque(param)
    return found


def painted(upload: Upload) -> Image.Image:
    """A mask as the page sends it: mode L, white where to repaint, which its transparency says if it has any, else white."""
    if "A" in upload.image.getbands() and upload.image.getchannel("A").getextrema()[0] < OPAQUE:  # type: ignore[operator]
        return hole(upload, "mask")
    return upload.image.convert("L").point([255 * (value >= OPAQUE) for value in range(256)])


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and body of each chunk up to IEND, in order; ValueError where it is not whole or a CRC is wrong."""
    at = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if at + 12 > len(png):
            raise ValueError("it ends too early")
        length, name = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + length]
        crc = png[at + 8 + length : at + 12 + length]
        if len(crc) < 4 or zlib.crc32(body, zlib.crc32(name)) != int.from_bytes(crc, "big"):
            raise ValueError("a chunk is cut or altered")
        yield name, body
        if name == b"IEND":
            return
        at += 12 + length
    raise ValueError("it has too many chunks")


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk as it stands in a PNG."""
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _decode(data: bytes, kind: str, param: str) -> Upload:
    try:
        width, height = _SIZES[kind](data)
        _check_size(width, height, param)
        with Image.open(io.BytesIO(_bare(data) if kind == "image/png" else data), formats=(_NAMES[kind],)) as image:
            _check_size(*image.size, param)  # again: a file can have two headers, and Pillow takes the last
            image.load()
            _turn_upright(image)
            return Upload(_enlarged(_plain(image)), image.mode)
    except ApiError:
        raise
    except Exception:  # whatever a library makes of hostile bytes, and whatever it says about it: the file is at fault
        raise ApiError(400, "The picture cannot be read: it is damaged or not whole.", param=param) from None


def _check_size(width: int, height: int, param: str) -> None:
    if not (1 <= width <= LARGEST and 1 <= height <= LARGEST and width * height <= MOST_PIXELS):
        message = (
            f"The picture is {width} x {height} px: expected at most {MOST_PIXELS / 1e6:.1f} million pixels "
            f"and {LARGEST} px a side."
        )
        raise ApiError(400, message, param=param, code="invalid_image_size")


def _bare(png: bytes) -> bytes:
    """The PNG with nothing in it but its pixels, what their values mean, and which side is up."""
    kept = [(name, body) for name, body in chunks(png) if name in _KEPT or (name == b"eXIf" and len(body) <= _MOST_EXIF)]
    return SIGNATURE + b"".join(chunk(name, body) for name, body in kept)


def _png_size(png: bytes) -> tuple[int, int]:
    if png[12:16] != b"IHDR":
        raise ValueError("it does not begin with its header")
    return struct.unpack_from(">II", png, 16)


def _jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """From the frame header. A file of many scans, each of which goes over all pixels, is refused here."""
    if jpeg.count(b"\xff\xda") > _MOST_SCANS:
        raise ValueError("it has too many scans")
    at = 2
    while at + 9 <= len(jpeg):
        marker, length = struct.unpack_from(">HH", jpeg, at)
        if marker == 0xFFFF:  # a fill byte
            at += 1
            continue
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", jpeg, at + 5)
            return width, height
        if marker < 0xFFC0 or length < 2:
            break
        at += 2 + length
    raise ValueError("it has no frame header")


def _webp_size(webp: bytes) -> tuple[int, int]:
    """From the first chunk, where it has the file's canvas or its only frame."""
    name = webp[12:16]
    if name == b"VP8X":
        if webp[20] & 2:
            raise ApiError(400, "The picture moves: give one that stands still.", param="image")
        return int.from_bytes(webp[24:27], "little") + 1, int.from_bytes(webp[27:30], "little") + 1
    if name == b"VP8 " and webp[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", webp, 26)
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L" and webp[20] == 0x2F:
        bits = int.from_bytes(webp[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise ValueError("it has no frame header")


_SIZES = {"image/png": _png_size, "image/jpeg": _jpeg_size, "image/webp": _webp_size}


def _turn_upright(image: Image.Image) -> None:
    # EXIF that nobody can read turns nothing.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _plain(image: Image.Image) -> Image.Image:
    """8 bit RGB, or RGBA where there is transparency."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray(np.rint(values / np.float32(257)).astype(np.uint8)).convert("RGB")  # 65535 / 257 = 255
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        return grey
    plain = image.convert("RGBA" if image.has_transparency_data else "RGB")
    plain.info.clear()  # of which Pillow would write some
    return plain


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-SMALLEST // min(image.size))
    if factor == 1:
        return image
    _check_size(image.width * factor, image.height * factor, "image")
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _opaque(param: str) -> ApiError:
    message = "There is nothing to repaint: the pixels to repaint must be transparent, and none is."
    return ApiError(400, message, param=param)
