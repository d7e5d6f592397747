"""Pictures out of drawings: backgrounds, tints, placing. Everything is given in fractions of the canvas, on a grid of 1/64.

So a picture composed at 64, 256 and 1024 px is the same picture. Layers are premultiplied RGBA, uint8 (s, s, 4).
"""

import numpy as np

GRID = 64
COLORS = {  # what things are tinted in
    "red": (222, 40, 48),
    "orange": (247, 140, 30),
    "yellow": (250, 215, 50),
    "green": (58, 168, 75),
    "blue": (45, 105, 222),
    "purple": (140, 70, 190),
    "pink": (246, 125, 185),
    "brown": (130, 82, 50),
    "gray": (140, 145, 152),
    "black": (42, 42, 48),
}
BACKGROUNDS = {
    **COLORS,
    "light blue": (178, 218, 246),
    "light green": (190, 232, 190),
    "light pink": (252, 214, 226),
    "light yellow": (253, 244, 190),
    "light purple": (220, 202, 240),
    "light orange": (253, 220, 184),
    "light gray": (220, 223, 227),
    "dark blue": (24, 40, 98),
    "dark green": (20, 82, 48),
    "turquoise": (64, 196, 196),
    "beige": (238, 224, 200),
}
WHITE = (255, 255, 255)
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def fill(size: int, colors: tuple[tuple[int, int, int], ...], direction: int = 0) -> np.ndarray:
    """A canvas, uint8 (size, size, 3): one colour, or a gradient between two: downwards, rightwards, along the diagonal."""
    first = np.array(colors[0], dtype=np.float32)
    if len(colors) == 1:
        return np.broadcast_to(first.astype(np.uint8), (size, size, 3)).copy()
    ramp = (np.arange(size, dtype=np.float32) + 0.5) / size
    down, right = ramp[:, None], ramp[None, :]
    weight = (down + 0 * right, right + 0 * down, (down + right) / 2)[direction][..., None]
    return (first + (np.array(colors[1], dtype=np.float32) - first) * weight).round().astype(np.uint8)


def tint(layer: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """The layer in shades of one colour: its luma goes from a dark shade through the colour to a light one.

    The luma is stretched around the drawing's own mean, so that a pale and a dark drawing both come out in the colour named.
    """
    alpha = layer[..., 3:].astype(np.float32)
    solid = alpha[..., 0] > 128
    luma = (layer[..., :3].astype(np.float32) @ LUMA)[..., None] / np.maximum(alpha, 1)
    middle = float(luma[solid].mean()) if solid.any() else 0.5
    shade = np.clip(0.5 + 0.9 * (luma - middle), 0.08, 0.92)
    target = np.array(color, dtype=np.float32)
    dark, light = target * 0.25, target + (255 - target) * 0.8
    low = dark + (target - dark) * (shade * 2)
    high = target + (light - target) * (shade * 2 - 1)
    result = layer.copy()
    result[..., :3] = (np.where(shade < 0.5, low, high) * (alpha / 255)).round()
    return result


def paste(canvas: np.ndarray, layer: np.ndarray, left: int, top: int) -> None:
    """Lays a premultiplied layer over the canvas, in place; what sticks out is cut off."""
    size, side = canvas.shape[0], layer.shape[0]
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + side, size), min(left + side, size)
    if y0 >= y1 or x0 >= x1:
        return
    part = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    keep = 255 - part[..., 3:].astype(np.uint16)
    region[:] = np.minimum(part[..., :3] + (region * keep + 127) // 255, 255)


def snap(value: float) -> float:
    """The nearest point of the grid of 1/64 of the canvas."""
    return round(value * GRID) / GRID


def turn_over(layer: np.ndarray) -> np.ndarray:
    """Upside down: half a turn."""
    return layer[::-1, ::-1]
