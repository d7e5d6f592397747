"""The best of many by CLIP, as DALL·E 1 chose what it showed: pictures nearest to their caption (2102.12092, section 2.6).

What is chosen is a seed. Candidates are painted no larger than CLIP looks at them, the chosen ones again at full size, so
that each is the picture that its seed gives anywhere else.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image

from unclip.clip import Clip, unit
from unclip.errors import RequestError

Paint = Callable[[list[str], list[int], int], list[Image.Image]]
"""A picture for each prompt and seed, at a side in pixels."""
AT_ONCE = 16  # candidates painted in one call


class Ranked(NamedTuple):
    """A picture, its place among those given, from 0, and the cosine of its embedding and the caption's."""

    image: Image.Image
    place: int
    score: float


def rerank(clip: Clip, images: Sequence[Image.Image], prompt: str, *, keep: int | None = None) -> list[Ranked]:
    """The `keep` images, by default all, that `clip` finds nearest to the prompt, the nearest first; ties as they came.

    RequestError for no image, or fewer than are to be kept.
    """
    keep = len(images) if keep is None else keep
    if not 1 <= keep <= len(images):
        raise RequestError(f"keep = {keep} of {len(images)} pictures: expected from 1 to as many as there are")
    scores = (unit(clip.images(images)) @ unit(clip.texts([prompt]))[0]).tolist()
    order = sorted(range(len(images)), key=lambda place: -scores[place])
    return [Ranked(images[place], place, scores[place]) for place in order[:keep]]


def best_of(
    paint: Paint,
    clip: Clip,
    prompt: str,
    *,
    among: int,
    n: int = 1,
    seed: int = 0,
    sizes: tuple[int, int],
    told: Callable[[int], None] = lambda painted: None,
) -> list[Ranked]:
    """The `n` best of `among` pictures of a prompt, of the seeds `seed`, `seed + 1`, ...; `place` + `seed` is that of each.

    `sizes`: at which candidates are painted, see `draft_size`, and at which those that are chosen are. `told` hears how
    many candidates there are so far. RequestError for more to be chosen than there are.
    """
    if not 1 <= n <= among:
        raise RequestError(f"the best {n} of {among} pictures: expected from 1 to as many as are painted")
    draft, final = sizes
    drafts: list[Image.Image] = []
    for start in range(0, among, AT_ONCE):
        seeds = list(range(seed + start, seed + min(start + AT_ONCE, among)))
        drafts += paint([prompt] * len(seeds), seeds, draft)
        told(len(drafts))
    best = rerank(clip, drafts, prompt, keep=n)
    if final == draft:
        return best
    whole = paint([prompt] * n, [seed + one.place for one in best], final)
    return [one._replace(image=image) for one, image in zip(best, whole, strict=True)]


def draft_size(sizes: Sequence[int], seen_at: int) -> int:
    """The least of a model's sizes, in pixels, at which who looks at `seen_at` loses nothing, else its largest."""
    return min((size for size in sizes if size >= seen_at), default=max(sizes))
