"""The scene grammar: what is in a picture as data, the caption that says exactly that, and captions that say it wrong.

Six categories, named after GenEval (2310.11513): single (also large, small, upside down), two_objects, counting, colors,
position, color_attr. `draw` chooses a scene, `describe` captions it, `layout` places it, `counterfactuals` gives the wrong
captions of the same form that an evaluation sets beside the right one.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from unclip.data.icons.canvas import BACKGROUNDS, COLORS, snap
from unclip.data.icons.english import NUMBERS, article, plural, with_article

CATEGORIES = ("single", "two_objects", "counting", "colors", "position", "color_attr")
WEIGHTS = (0.12, 0.16, 0.18, 0.18, 0.20, 0.16)
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", "on top of": "below"}
FORMS = ("large", "small", "upside-down")
COUNTS = (2, 3, 4)


@dataclass(frozen=True)
class Object:
    """A thing in a scene: its name as said, its colour where it is tinted."""

    name: str
    color: str | None = None

    @property
    def phrase(self) -> str:
        return f"{self.color} {self.name}" if self.color else self.name


@dataclass(frozen=True)
class Scene:
    """What a picture shows. `background`: no colour for white (unsaid), one, or two for a gradient; `prefix`: the style."""

    category: str
    objects: tuple[Object, ...]
    count: int = 1
    relation: str | None = None
    form: str | None = None
    background: tuple[str, ...] = ()
    prefix: str = ""

    def record(self) -> dict[str, Any]:
        return asdict(self)


def scene_of(record: dict[str, Any]) -> Scene:
    """The scene that `Scene.record` wrote, also after a round trip through JSON."""
    objects = tuple(Object(**one) for one in record["objects"])
    return Scene(**{**record, "objects": objects, "background": tuple(record["background"])})


def describe(scene: Scene) -> str:
    """The caption: exactly what is there, nothing else."""
    first = scene.objects[0]
    if scene.count > 1:
        said = f"{NUMBERS[scene.count]} {plural(first.phrase)}"
    elif scene.form:
        said = f"{article(scene.form)} {scene.form} {first.phrase}"
    else:
        said = with_article(first.phrase)
    if len(scene.objects) == 2:
        link = {"left of": "to the left of", "right of": "to the right of", None: "and"}.get(scene.relation, scene.relation)
        said = f"{said} {link} {with_article(scene.objects[1].phrase)}"
    return f"{scene.prefix}{said}{describe_background(scene.background)}"


def describe_background(background: Sequence[str]) -> str:
    """' on a blue background', ' on a blue to pink gradient background', or nothing for white."""
    if not background:
        return ""
    kind = background[0] if len(background) == 1 else f"{background[0]} to {background[1]} gradient"
    return f" on {article(kind)} {kind} background"


def draw_background(rng: Random, *, plain: float, avoid: Sequence[str | None] = ()) -> tuple[str, ...]:
    """White with probability `plain`, else a colour (three quarters) or a gradient, away from the colours in `avoid`."""
    if rng.random() < plain:
        return ()
    free = [name for name in BACKGROUNDS if not any(color and color in name for color in avoid)]
    return tuple(rng.sample(free, 2)) if rng.random() < 0.25 else (rng.choice(free),)


def counterfactuals(meta: dict[str, Any]) -> list[str]:
    """Wrong captions of the same form: another count, other or swapped colours, the other order, another object.

    `meta` is a sample's; needs its 'scene' and 'others' (names of things that are not in the picture). The true caption of
    this form is meta['truth'], which for single drawings is plainer than the sample's caption.
    """
    scene, others = scene_of(meta["scene"]), meta["others"]
    wrong = _swaps(scene)
    for position in range(len(scene.objects)):
        for other in others[: 4 // len(scene.objects)]:
            objects = list(scene.objects)
            objects[position] = replace(objects[position], name=other)
            wrong.append(replace(scene, objects=tuple(objects)))
    truths = {describe(scene), describe(_mirrored(scene))}
    return [caption for caption in dict.fromkeys(map(describe, wrong)) if caption not in truths]


def grounds(scene: Scene, caption: str) -> list[str]:
    """`caption`, which ends by telling the scene's coloured ground, with two others; none for white, which is untold."""
    told = describe_background(scene.background)
    if not told:
        return []
    names = list(BACKGROUNDS)
    start = names.index(scene.background[0])
    around = (names[(start + step) % len(names)] for step in (2, 3, 5, 7))
    other = [name for name in around if name not in scene.background][:2]
    return [caption.removesuffix(told) + describe_background((name,)) for name in other]


def _mirrored(scene: Scene) -> Scene:
    """The same facts said in the other order: 'a and b' is 'b and a', 'a left of b' is 'b right of a'."""
    if len(scene.objects) < 2 or scene.relation == "on top of":
        return scene
    relation = RELATIONS[scene.relation] if scene.relation else None
    return replace(scene, objects=scene.objects[::-1], relation=relation)


def _swaps(scene: Scene) -> list[Scene]:
    wrong = [replace(scene, count=count) for count in COUNTS if scene.count > 1 and count != scene.count]
    if scene.form:
        wrong += [replace(scene, form=form) for form in FORMS if form != scene.form]
    if scene.relation:
        wrong.append(replace(scene, objects=scene.objects[::-1]))
        wrong += [
            replace(scene, relation=r) for r in ("left of", "right of", "above", "below") if _differs(r, scene.relation)
        ]
    colors = [thing.color for thing in scene.objects]
    if len(colors) == 2 and all(colors):
        exchanged = (replace(thing, color=color) for thing, color in zip(scene.objects, reversed(colors), strict=True))
        wrong.append(replace(scene, objects=tuple(exchanged)))
    for position, thing in enumerate(scene.objects):
        for color in _other_colors(thing.color, colors):
            objects = list(scene.objects)
            objects[position] = replace(thing, color=color)
            wrong.append(replace(scene, objects=tuple(objects)))
    return wrong


def _differs(relation: str, truth: str) -> bool:
    return relation != truth and not (relation == "above" and truth == "on top of")


def _other_colors(color: str | None, used: Sequence[str | None]) -> list[str]:
    """Three other colours, spread over the palette, the same for every call."""
    if color is None:
        return []
    names = list(COLORS)
    start = names.index(color)
    around = (names[(start + step) % len(names)] for step in (3, 5, 7, 2, 8))
    return [name for name in around if name not in used][:3]


Allowed = Callable[[Scene], bool]


def draw(rng: Random, category: str, pick: Callable[[], str], colorable: Callable[[str], bool]) -> Scene:
    """A random scene of a category. `pick` names a random thing; `colorable` says whether a thing may be tinted."""
    pair = category in ("two_objects", "position", "color_attr")
    tinted = category in ("colors", "color_attr")
    names: list[str] = []
    while len(names) < 1 + pair:
        name = pick()
        if name not in names and (colorable(name) or not tinted):
            names.append(name)
    colors = rng.sample(list(COLORS), len(names)) if tinted else [None] * len(names)
    objects = tuple(Object(name, color) for name, color in zip(names, colors, strict=True))
    return Scene(
        category=category,
        objects=objects,
        count=rng.choice(COUNTS) if category == "counting" else 1,
        relation=rng.choice(list(RELATIONS)) if category == "position" else None,
        form=rng.choice(FORMS) if category == "single" else None,
    )


@dataclass(frozen=True)
class Place:
    """Where a drawing goes: which object, the left and top of its square, its side, all in fractions of the canvas."""

    object: int
    left: float
    top: float
    side: float


def layout(scene: Scene, boxes: Sequence[Sequence[float]], rng: Random, jitter: float = 1.0) -> list[Place]:
    """Where everything goes, back to front. `boxes`: each object's visible box (left, top, right, bottom) in its square."""
    if scene.count > 1:
        places = _copies(scene.count, rng)
    elif len(scene.objects) == 2:
        places = _stacked(boxes) if scene.relation == "on top of" else _side_by_side(scene.relation, rng)
    else:
        side = {"large": 1.0, "small": 0.36, None: 0.8, "upside-down": 0.8}[scene.form]
        room = (1 - side) * (0.8 if scene.form == "small" else 0.4)
        places = [
            Place(0, (1 - side) / 2 + rng.uniform(-0.5, 0.5) * room, (1 - side) / 2 + rng.uniform(-0.5, 0.5) * room, side)
        ]
    shift_x, shift_y = rng.uniform(-0.02, 0.02) * jitter, rng.uniform(-0.02, 0.02) * jitter
    return [Place(p.object, snap(p.left + shift_x), snap(p.top + shift_y), snap(p.side)) for p in places]


def _copies(count: int, rng: Random) -> list[Place]:
    """Rows, a triangle, a square, a diagonal: equal copies that do not overlap."""
    row = [(index / count + 0.5 / count, 0.5) for index in range(count)]
    shapes = {
        2: [row, [(0.5, 0.25), (0.5, 0.75)], [(0.27, 0.27), (0.73, 0.73)]],
        3: [row, [(0.5, 0.27), (0.26, 0.73), (0.74, 0.73)], [(0.26, 0.27), (0.74, 0.27), (0.5, 0.73)]],
        4: [[(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]],
    }
    centres = rng.choice(shapes[count])
    side = 0.88 / count if centres is row and count > 2 else 0.46
    return [Place(0, x - side / 2, y - side / 2, side) for x, y in centres]


def _side_by_side(relation: str | None, rng: Random) -> list[Place]:
    if relation is None:
        relation = rng.choice(("left of", "right of", "above", "below"))
    side = rng.uniform(0.4, 0.46)
    other = rng.uniform(-0.1, 0.1)
    near, far = 0.25 - side / 2, 0.75 - side / 2
    middle = 0.5 - side / 2 + other
    first, second = (near, far) if relation in ("left of", "above") else (far, near)
    if relation in ("left of", "right of"):
        return [Place(0, first, middle, side), Place(1, second, middle, side)]
    return [Place(0, middle, first, side), Place(1, middle, second, side)]


def _stacked(boxes: Sequence[Sequence[float]]) -> list[Place]:
    """The first object stands on the second: its lowest pixel a little below the other's highest, both centred."""
    (_, top_0, _, bottom_0), (_, top_1, _, bottom_1) = boxes
    overlap = 0.06
    height = (bottom_0 - top_0) + (bottom_1 - top_1) - overlap
    side = min(0.58, 0.94 / height)
    top = (1 - height * side) / 2  # of the upper object's visible part
    upper = Place(0, 0.5 - side / 2, top - top_0 * side, side)
    lower = Place(1, 0.5 - side / 2, top + (bottom_0 - top_0 - overlap) * side - top_1 * side, side)
    return [lower, upper]
