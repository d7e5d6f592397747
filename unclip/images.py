"""Pictures in and out: PIL images, bytes and float tensors; one resize; contact sheets; PNGs that say how they were made.

Three forms, H and W rows and columns:
    image     PIL, mode RGB
    pixels    uint8 numpy (..., H, W, 3)
    tensor    float32 (..., 3, H, W) in [-1, 1]
A byte u is the value u / 127.5 - 1; a value goes back to the nearest byte, one outside [-1, 1] to the end of the range.
So every byte survives the round trip exactly, and black and white are exactly -1 and 1.
"""

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin
from torch import Tensor

from unclip.errors import RequestError
from unclip.files import replacing, write_bytes

WHITE = (255, 255, 255)
CHUNK = "unclip"  # the keyword of the PNG's iTXt chunk
SMALLEST, LARGEST = 8, 16_384  # px: the sides of a picture that somebody gives
_DESCRIPTION = 0x010E  # the EXIF tag that carries the settings of a WebP
_GAP, _FONT_SIZE, _CAPTION_LINES = 6, 12, 3  # of contact sheets: pixels, pixels, lines
_QUALITIES = (90, 80, 65, 50, 35)  # of lossy WebP, the best first


def rgb(image: Image.Image, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Any picture as upright RGB: EXIF orientation applied, transparency laid over `background`, 16-bit grey scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / 257  # 65535 / 257 = 255
        image = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return image.convert("RGB")


def hole_of(mask: Image.Image, *, transparent: bool = False) -> np.ndarray:
    """Where a mask says "repaint", (H, W) bool, upright: where it is transparent, or, if it nowhere is, where it is white.

    Alpha below and brightness from 128 count. `transparent`: its transparency alone, for a picture that is its own mask.
    """
    mask = ImageOps.exif_transpose(mask)
    if mask.has_transparency_data:
        clear = np.asarray(mask.convert("RGBA"))[..., 3] < 128
        if transparent or clear.any():
            return clear
    return np.asarray(rgb(mask).convert("L")) >= 128


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """B images of one size as a tensor (B, 3, H, W)."""
    return from_pixels(np.stack([np.asarray(rgb(image)) for image in images]))


def to_images(x: Tensor) -> list[Image.Image]:
    """A tensor (B, 3, H, W) as B images."""
    return [Image.fromarray(pixels) for pixels in to_pixels(x)]


def from_pixels(pixels: np.ndarray) -> Tensor:
    """uint8 (..., H, W, 3) as a tensor (..., 3, H, W)."""
    return torch.tensor(pixels).movedim(-1, -3).contiguous().float() / 127.5 - 1


def to_pixels(x: Tensor) -> np.ndarray:
    """A tensor (..., 3, H, W) as uint8 (..., H, W, 3)."""
    pixels = ((x.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255)
    return pixels.movedim(-3, -1).contiguous().to(torch.uint8).numpy()


def resize(x: Tensor, size: int | tuple[int, int], *, clamped: bool = True) -> Tensor:
    """A tensor (B, 3, H, W) at `size` (one side, or rows and columns): antialiased bicubic, clamped to [-1, 1] if asked.

    This is the one resize of training and sampling; it is the filter (a = -0.5) of Pillow's BICUBIC.
    """
    size = (size, size) if isinstance(size, int) else size
    given = x.float().cpu() if x.device.type == "mps" else x.float()  # where there is no antialiased bicubic
    resized = F.interpolate(given, size=size, mode="bicubic", antialias=True, align_corners=False)
    return (resized.clamp(-1, 1) if clamped else resized).to(x.device, x.dtype)


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image (B, 3, H, W), range [-1, 1], in dB (B,)."""
    return 10 * (4 / (x - truth).square().flatten(1).mean(1)).log10()


def resize_image(image: Image.Image, size: int) -> Image.Image:
    """An image at size x size by Pillow's BICUBIC: the filter of `resize`, made bytes after each direction."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def shrink(image: Image.Image, size: int) -> np.ndarray:
    """A square RGB image at another side, uint8 (size, size, 3): antialiased bicubic, of bytes.

    Torch's kernel for them: Pillow's BICUBIC to one of 255, in a sixth of its time where there is AVX2. It keeps to one
    thread, as whatever decodes pictures beside a network has to.
    """
    pixels = np.array(image)
    if len(pixels) == size:
        return pixels
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    shrunk = F.interpolate(x, size=(size, size), mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(shrunk.numpy().transpose(1, 2, 0))


def square_crop(image: Image.Image) -> Image.Image:
    """The largest square in the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def grid(images: Sequence[Image.Image], columns: int, captions: Sequence[str] | None = None) -> Image.Image:
    """A contact sheet on white, `columns` cells a row, each caption under its picture and never on its pixels.

    Every cell is as large as the largest image. A caption that needs more than three lines is cut with an ellipsis.
    """
    width, height = (max(image.size[axis] for image in images) for axis in (0, 1))
    font = ImageFont.load_default(_FONT_SIZE)
    texts = [_wrap(caption, width, font) for caption in captions or [""] * len(images)]
    line = _FONT_SIZE + 3
    text_height = line * max(len(text) for text in texts)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    cell_width, cell_height = width + _GAP, height + text_height + _GAP
    sheet = Image.new("RGB", (columns * cell_width + _GAP, rows * cell_height + _GAP), WHITE)
    draw = ImageDraw.Draw(sheet)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        left, top = _GAP + i % columns * cell_width, _GAP + i // columns * cell_height
        sheet.paste(image, (left, top))
        for j, words in enumerate(text):
            draw.text((left, top + height + 1 + j * line), words, fill=(0, 0, 0), font=font)
    return sheet


def save_png(image: Image.Image, path: str | Path, settings: dict[str, Any] | None = None) -> None:
    """Writes a PNG, whole or not at all; `settings` (prompt, seed, model, ...) go into it as JSON.

    Raises RequestError when the place cannot be written.
    """
    info = PngImagePlugin.PngInfo()
    if settings is not None:
        info.add_itxt(CHUNK, json.dumps(settings, ensure_ascii=False))
    _save(image, path, format="PNG", pnginfo=info)


def save_webp(frames: Sequence[Image.Image], path: str | Path, settings: dict[str, Any], *, milliseconds: int = 150) -> None:
    """Writes an animation that loops, lossless, so long a frame; its settings stand in it as a PNG's do."""
    exif = Image.Exif()
    exif[_DESCRIPTION] = json.dumps({CHUNK: settings})
    rest = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0, "lossless": True}
    _save(frames[0], path, format="WEBP", exif=exif, **rest)


def save_lossy(
    frames: Sequence[Image.Image], path: str | Path, *, limit: int, milliseconds: int | Sequence[int] = 150
) -> None:
    """Writes a lossy WebP of at most `limit` bytes, a picture or an animation that loops: what documents show.

    Of a few qualities the best that fits. Raises RequestError when none does or the place cannot be written.
    """
    duration = milliseconds if isinstance(milliseconds, int) else list(milliseconds)
    rest = {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0}
    content = b""
    for quality in _QUALITIES:
        written = io.BytesIO()
        frames[0].save(written, format="WEBP", quality=quality, **rest)
        content = written.getvalue()
        if len(content) <= limit:
            break
    else:
        raise RequestError(f"cannot write {path}: {len(content)} bytes at the lowest quality, more than {limit}")
    try:
        write_bytes(path, content)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from None


def _save(image: Image.Image, path: str | Path, **how: Any) -> None:
    try:
        with replacing(path) as temporary:
            image.save(temporary, **how)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror or error}") from None


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings in a PNG or WebP of ours; RequestError when it is no whole picture or carries none."""
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as image:
            image.load()
            text = _settings_text(image)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG chunk
        reason = getattr(error, "strerror", None) or "it is not a whole PNG"
        raise RequestError(f"cannot read {path}: {reason}") from None
    if text is None:
        raise RequestError(f"{path} carries no settings: it was not made by unclip, or they were stripped")
    try:
        return json.loads(text)
    except ValueError:
        raise RequestError(f"the settings in {path} are not JSON") from None


def _settings_text(image: Image.Image) -> str | None:
    """The JSON in a picture of ours, None where there is none."""
    if image.format == "WEBP":
        described = str(image.getexif().get(_DESCRIPTION, ""))
        head, tail = f'{{"{CHUNK}": ', "}"
        return described.removeprefix(head).removesuffix(tail) if described.startswith(head) else None
    return image.info.get(CHUNK)


def read_picture(path: str | Path) -> Image.Image:
    """A picture that somebody gives, of any format that Pillow reads, in memory and as it is there; `rgb` makes it pixels.

    `.info["source"]` holds its file's name and sha256, `.info["unclip"]` the settings if it has any. Raises RequestError
    where `check_picture` does, and for what is missing or no whole picture.
    """
    try:
        content = Path(path).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        check_picture(image, str(path))
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestError(f"{path} is too large: expected at most {LARGEST} px a side and 89 million in all") from None
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a whole picture"
        raise RequestError(f"cannot read {path}: {reason}") from None
    image.info["source"] = {"file": Path(path).name, "sha256": hashlib.sha256(content).hexdigest()}
    text = _settings_text(image)
    if isinstance(text, str):
        try:
            image.info[CHUNK] = json.loads(text)
        except ValueError:  # somebody else's chunk
            del image.info[CHUNK]
    return image


def check_picture(image: Image.Image, name: str = "the picture") -> None:
    """RequestError for a side outside 8 to 16,384 px, or for more than one frame."""
    check_sides(*image.size, name)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # whose first frame is the photograph, the others depth and previews
        raise RequestError(f"{name} has {frames} frames: give a picture that stands still")


def check_sides(width: int, height: int, name: str) -> None:
    """RequestError for a side outside 8 to 16,384 px."""
    if min(width, height) < SMALLEST or max(width, height) > LARGEST:
        raise RequestError(f"{name} is {width} x {height} px: expected {SMALLEST} to {LARGEST} px a side")


def make_folder(path: str | Path) -> Path:
    """The folder at `path`, made when it is not there; RequestError when files cannot be written in it.

    Called before anything is painted, so that a wrong folder costs no minute of work.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RequestError(f"cannot write in the folder {path}: {error.strerror or error}") from None
    return folder


def _wrap(caption: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """`caption` as at most three lines that are no wider than `width` pixels."""
    lines: list[str] = []
    for word in caption.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    cut = len(lines) > _CAPTION_LINES
    lines = [_shorten(line, width, font) for line in lines[:_CAPTION_LINES]]
    if cut:
        lines[-1] = _shorten(lines[-1] + "…", width, font)
    return lines


def _shorten(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`line`, its tail replaced by an ellipsis when it is wider than `width` pixels."""
    if font.getlength(line) <= width:
        return line
    kept = line.removesuffix("…")
    while kept and font.getlength(kept + "…") > width:
        kept = kept[:-1]
    return kept + "…"
