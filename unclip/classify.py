"""Zero-shot labels (CLIP, 2103.00020, section 3.1): the class whose sentences, averaged, lie nearest to a picture.

A class is its name in several templates; their unit embeddings are averaged, and the mean is of unit length again (section
3.1.4): it costs once for a class. Probabilities are the softmax over the classes of CLIP's own scaled cosines, so they say
which of these it is, and never that it is none of them. Dimension letters: N pictures, K classes, E embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unclip.clip import Clip, unit
from unclip.errors import RequestError

TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a picture of a {}.",
    "an icon of a {}.",
    "a drawing of a {}.",
    "a 3d render of a {}.",
)
"""For pictures of any kind; whoever knows his pictures gives sentences that fit them."""


class Classifier:
    """A CLIP with classes to choose among. RequestError for fewer than two, one named twice, or a template without {}."""

    def __init__(self, clip: Clip, labels: Sequence[str], templates: Sequence[str] = TEMPLATES):
        self.clip, self.labels = clip, [" ".join(label.split()) for label in labels]
        _check(self.labels, templates)
        sentences = [template.format(label) for label in self.labels for template in templates]
        each = unit(clip.texts(sentences)).view(len(self.labels), len(templates), -1)
        self.weights = unit(each.mean(dim=1))  # (K, E)

    def probabilities(self, z: Tensor) -> Tensor:
        """(N, K), rows that sum to one, for the z (N, E) of pictures."""
        with torch.inference_mode():
            return self.clip.network.logits(z.to(self.clip.device), self.weights.to(self.clip.device)).cpu().softmax(dim=1)

    def best(self, z: Tensor, top: int) -> list[list[tuple[str, float]]]:
        """For each picture its `top` likeliest labels with their probabilities, the likeliest first; ties as given."""
        order = self.probabilities(z).sort(dim=1, descending=True, stable=True)
        rows = zip(order.indices[:, :top].tolist(), order.values[:, :top].tolist(), strict=True)
        return [[(self.labels[place], p) for place, p in zip(places, ps, strict=True)] for places, ps in rows]


def _check(labels: Sequence[str], templates: Sequence[str]) -> None:
    if len(labels) < 2 or not all(labels):
        raise RequestError(f"labels {', '.join(map(repr, labels)) or 'none'}: expected two or more, none of them empty")
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise RequestError(f"the label {twice[0]!r} is there twice: expected each once")
    for template in templates:
        if template.count("{}") != 1 or template.replace("{}", "").count("{") or template.replace("{}", "").count("}"):
            raise RequestError(f"the template {template!r}: expected one {{}}, where the label goes, and no other brace")
    if not templates:
        raise RequestError("no template: expected at least one, as 'a photo of a {}'")
