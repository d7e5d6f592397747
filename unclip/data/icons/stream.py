"""The endless stream of captioned pictures over a prepared icons set: single drawings and composed scenes.

Position p's picture is a pure function of (seed, split, settings, p). Singles go through the split's drawings in a keyed
permutation an epoch; whether position p is a scene instead, and which, comes from a generator seeded by (seed, p).
"""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from unclip.data.icons import canvas, captions, scenes
from unclip.data.icons.drawings import Drawings
from unclip.data.icons.scenes import Object, Place, Scene
from unclip.data.icons.selection import Drawing, composable
from unclip.data.icons.splits import SPLITS, color_held_out, pair_held_out
from unclip.data.order import Order
from unclip.data.source import Sample
from unclip.errors import DataError
from unclip.seeds import mix

SCENE_STREAM = 0x5CE9E  # keeps the scenes' dice apart from the order's
WRONG_STREAM = 0x3A15E  # and those of wrong captions from both
HELD_OUT_CATEGORIES = ("two_objects", "colors", "position", "color_attr")  # those that a held-out combination can make
OTHERS = 4
MOST_TRIES = 10_000  # one in ten is held out, so this is never reached but by a tiny set
COLOR_WORDS = {word for name in canvas.BACKGROUNDS for word in name.split()} | {"white", "rainbow", "grey", "golden"}


class IconStream:
    """A `Source` over the icons set in `root`.

    `split`: 'train', 'thing' or 'pair' draw from that split's drawings; 'scene' composes training drawings into exactly the
    combinations of objects, or of object and colour, that training never holds. `scenes`: the probability of a scene (always
    1 for 'scene'). `plain`: the probability of an untold white background. `jitter`: how far single drawings vary in size
    and place, 0 = centred and full size, 1 = down to 75 % and off-centre within the room left.
    """

    def __init__(
        self,
        root: str | Path | Drawings,
        seed: int,
        *,
        split: str = "train",
        scenes: float = 0.0,
        plain: float = 0.7,
        jitter: float = 0.5,
    ):
        if split not in SPLITS:
            raise DataError(f"the icons set has no split {split!r}: choose one of {', '.join(SPLITS)}")
        self.drawings = root if isinstance(root, Drawings) else Drawings(root)
        self.seed = seed
        self.split = split
        self.scenes = 1.0 if split == "scene" else scenes
        self.plain = plain
        self.jitter = jitter
        self.pool = self.listing("train" if split == "scene" else split)
        if not self.pool:
            raise DataError(f"{self.drawings.root} has no drawings in the split {split!r}")
        self._order = Order(len(self.pool), seed)
        self._boxes = self.drawings.boxes()
        self._objects: dict[str, dict[str, Drawing]] = {}
        for drawing in filter(composable, self.pool):
            self._objects.setdefault(drawing.style, {})[captions.name(drawing)] = drawing
        self._objects = {style: by_name for style, by_name in self._objects.items() if _enough(list(by_name))}
        self._names = {style: list(by_name) for style, by_name in self._objects.items()}
        if self.scenes and not self._names:
            raise DataError(f"{self.drawings.root} has too few drawings in the split {split!r} to compose scenes of")

    def __len__(self) -> int:
        """Drawings in an epoch of singles."""
        return len(self.pool)

    def listing(self, split: str | None = None) -> list[Drawing]:
        """The drawings of a split ('train', 'thing', 'pair'), or of all, in the order of their keys."""
        return [drawing for drawing in self.drawings.listing if drawing.kept and split in (None, drawing.split)]

    def canonical(self, index: int, size: int) -> Sample:
        """Drawing `index` (its row, `Drawing.index`) as it is: centred on white, under its canonical caption."""
        drawing = self.drawings.listing[index]
        scene = Scene("single", (Object(captions.name(drawing)),), prefix=_prefix(drawing))
        picture = self._paint(scene, [drawing], [Place(0, 0.0, 0.0, 1.0)], [canvas.WHITE], 0, size)
        return Sample(drawing.key, picture, captions.canonical(drawing), self._meta(scene, [drawing], []))

    def sample(self, position: int, size: int) -> Sample:
        """The sample at `position`, `size` px square. Any size; past 256 px drawings come from their SVG."""
        rng = Random(mix(self.seed ^ SCENE_STREAM, position))
        if rng.random() < self.scenes:
            return self._scene(position, size, rng)
        drawing = self.pool[self._order(position)]
        background = scenes.draw_background(rng, plain=self.plain)
        scene = Scene("single", (Object(captions.name(drawing)),), background=background, prefix=_prefix(drawing))
        side = 1 - self.jitter * 0.25 * rng.random()
        room = max(1 - side, 0.06 * self.jitter)
        left, top = ((1 - side) / 2 + room * rng.uniform(-0.5, 0.5) for _ in range(2))
        place = Place(0, canvas.snap(left), canvas.snap(top), canvas.snap(side))
        caption = captions.caption(drawing, rng) + scenes.describe_background(background)
        picture = self._paint(scene, [drawing], [place], *_paint_pots(background, rng), size)
        meta = self._meta(scene, [drawing], self._others(scene, drawing.style, rng))
        return Sample(f"{drawing.key}#{position}", picture, caption, meta | {"wrong": self._wrong(scene, caption, position)})

    def _scene(self, position: int, size: int, rng: Random) -> Sample:
        style = rng.choice(list(self._names))
        category = self._category(rng)
        by_name, names = self._objects[style], self._names[style]
        scene = self._draw(rng, category, lambda: rng.choice(names), by_name)
        drawings = [by_name[thing.name] for thing in scene.objects]
        colors = [thing.color for thing in scene.objects]
        background = scenes.draw_background(rng, plain=self.plain, avoid=colors)
        prefix = captions.style_prefix(style, rng)
        scene = Scene(**{**vars(scene), "background": background, "prefix": prefix})
        places = scenes.layout(scene, [self._boxes[drawing.index] for drawing in drawings], rng)
        picture = self._paint(scene, drawings, places, *_paint_pots(background, rng), size)
        meta = self._meta(scene, drawings, self._others(scene, style, rng))
        wrong = scenes.counterfactuals(meta) + scenes.grounds(scene, scenes.describe(scene))
        return Sample(f"scene#{position}", picture, scenes.describe(scene), meta | {"wrong": wrong})

    def _wrong(self, scene: Scene, caption: str, position: int) -> list[str]:
        """False captions of a single drawing on a coloured ground: other drawings on it, this one on others.

        In a batch hardly a caption tells of the same ground, so that without these the ground alone says which is meant.
        """
        if not scene.background:
            return []
        rng = Random(mix(self.seed ^ WRONG_STREAM, position))
        ground, here = scenes.describe_background(scene.background), {thing.name for thing in scene.objects}
        others = [one for one in rng.sample(self.pool, min(len(self.pool), 2 * OTHERS)) if not here & set(one.names)]
        return [captions.caption(one, rng) + ground for one in others] + scenes.grounds(scene, caption)

    def _category(self, rng: Random) -> str:
        if self.split == "scene":
            return rng.choice(HELD_OUT_CATEGORIES)
        return rng.choices(scenes.CATEGORIES, scenes.WEIGHTS)[0]

    def _draw(self, rng: Random, category: str, pick: Callable[[], str], by_name: dict[str, Drawing]) -> Scene:
        """Scenes until one belongs to the split: training ones hold nothing held out, 'scene' ones hold something."""
        for _ in range(MOST_TRIES):
            scene = scenes.draw(rng, category, pick, _colorable)
            held_out = _held_out(scene, [by_name[thing.name].thing for thing in scene.objects])
            if self.split not in ("train", "scene") or held_out == (self.split == "scene"):
                return scene
        raise DataError(
            f"{self.drawings.root} has too few drawings: no {category} scene belongs to the split {self.split!r}"
        )

    def _paint(
        self,
        scene: Scene,
        drawings: list[Drawing],
        places: list[Place],
        colors: list[tuple[int, int, int]],
        direction: int,
        size: int,
    ) -> np.ndarray:
        """The picture, uint8 (size, size, 3)."""
        picture = canvas.fill(size, tuple(colors), direction)
        for place in places:
            side = max(1, round(place.side * size))
            layer = self.drawings.pixels(drawings[place.object].index, side)
            color = scene.objects[place.object].color
            if color is not None:
                layer = canvas.tint(layer, canvas.COLORS[color])
            if scene.form == "upside-down":
                layer = canvas.turn_over(layer)
            canvas.paste(picture, layer, round(place.left * size), round(place.top * size))
        return picture

    def _others(self, scene: Scene, style: str, rng: Random) -> list[str]:
        """Names of things that are not in the picture, for counterfactual captions."""
        there = {thing.name for thing in scene.objects}
        known = self._names.get(style) or [captions.name(drawing) for drawing in self.pool]
        drawn = rng.sample(known, min(len(known), OTHERS + len(there)))
        return [name for name in dict.fromkeys(drawn) if name not in there][:OTHERS]

    def _meta(self, scene: Scene, drawings: list[Drawing], others: list[str]) -> dict[str, Any]:
        return {
            "category": scene.category,
            "split": self.split,
            "style": drawings[0].style,
            "drawings": [drawing.key for drawing in drawings],
            "scene": scene.record(),
            "truth": scenes.describe(scene),
            "others": others,
        }


def _colorable(name: str) -> bool:
    """Whether a thing may be tinted: its name says no colour yet."""
    return not set(name.split()) & COLOR_WORDS


def _enough(names: list[str]) -> bool:
    """Whether scenes can be composed of things of these names: two to tint, and others to name in counterfactuals."""
    return len(names) > OTHERS + 2 and sum(map(_colorable, names)) >= 2


def _prefix(drawing: Drawing) -> str:
    return f"{captions.STYLE_PHRASES[drawing.style][0]} "


def _held_out(scene: Scene, things: list[str]) -> bool:
    """Whether the scene shows a combination that training must not hold."""
    colors = [thing.color for thing in scene.objects]
    if any(color is not None and color_held_out(thing, color) for thing, color in zip(things, colors, strict=True)):
        return True
    return len(things) == 2 and pair_held_out(things[0], things[1])


def _paint_pots(background: tuple[str, ...], rng: Random) -> tuple[list[tuple[int, int, int]], int]:
    """The background's RGB colours, each a little off its name's, and a gradient's direction."""
    if not background:
        return [canvas.WHITE], 0
    pots = []
    for name in background:
        red, green, blue = (min(255, max(0, value + rng.randint(-10, 10))) for value in canvas.BACKGROUNDS[name])
        pots.append((red, green, blue))
    return pots, rng.randrange(3)
