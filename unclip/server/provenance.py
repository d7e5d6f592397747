"""What a painted picture says of itself when it leaves: that a model made it, and, if wanted, how.

The first stands in XMP, as the IPTC's digital source type `trainedAlgorithmicMedia`, in every picture. The second is the
JSON of its settings, in the iTXt chunk from which `unclip info` reads it. Both are put in on the way out: the stored file
stays as it was painted, and whoever serves it decides. A visible signature, five small squares of our own colours in the
lower right corner, is for those who want one.
"""

import io
import json
from typing import Any

from PIL import Image, ImageDraw

from unclip.server.uploads import SIGNATURE, chunk, chunks

THUMB = 256  # px
COLOURS = ("#264653", "#2a9d8f", "#e9c46a", "#f4a261", "#e76f51")
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta>'
)
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")


def marked(png: bytes, settings: dict[str, Any] | None, *, signature: bool = False) -> bytes:
    """A stored PNG of ours as it leaves: `settings` in it, or, with None, none at all."""
    body = [(name, content) for name, content in chunks(_signed(png) if signature else png) if name not in _TEXTS]
    texts = [_itxt("XML:com.adobe.xmp", _XMP)]
    if settings is not None:
        texts.append(_itxt("unclip", json.dumps(settings, ensure_ascii=False)))
    return SIGNATURE + b"".join(chunk(*part) for part in [body[0], *texts, *body[1:]])


def thumbnail(png: bytes) -> bytes:
    """A stored PNG, no side longer than THUMB px."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((THUMB, THUMB), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


def _signed(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        painted = image.convert("RGB")
    square = max(1, painted.width // 64)
    draw = ImageDraw.Draw(painted)
    left, top = painted.width - len(COLOURS) * square, painted.height - square
    for i, colour in enumerate(COLOURS):
        draw.rectangle((left + i * square, top, left + (i + 1) * square - 1, painted.height - 1), fill=colour)
    buffer = io.BytesIO()
    painted.save(buffer, "PNG")
    return buffer.getvalue()


def _itxt(keyword: str, text: str) -> tuple[bytes, bytes]:
    """An uncompressed iTXt chunk: keyword, no compression, no language, no translation, the text."""
    return b"iTXt", keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "replace")
