"""Published weights into ours and back: a table of names as data, and a plan for what is fused or laid out otherwise.

A table is a list of rules. A rule names a module of ours, or one tensor, and where it comes from; what follows the name, as
".weight" or ".blocks.3.norm.bias", is carried over, and the longest rule that fits a tensor is the one that counts. A plan
says what is done to the numbers, both ways, so that every table exports as well as it imports:

    Rule("norm_out", "final_ln")                                  the same tensors under another name
    Rule("attention.qkv", ("to_q", "to_k", "to_v"), STACKED)      three matrices, one above the other, in ours
    Rule("attention.qkv", "c_qkv", PerHead(heads, 3))             one matrix, its rows interleaved head by head
    Rule("x0_error", (), Filled(nan))                             nothing of theirs: ours starts so

Strict both ways: a tensor that is missing, that nobody asked for, or of another shape or kind of numbers is an error that
names it. Shapes are known before anything is read: a plan splits the meta tensors of a network that was never allocated.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unclip.errors import WeightsError
from unclip.weights.store import describe, refuse

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Plan(Protocol):
    """How one tensor of ours is made of theirs (`merge`), and taken apart again (`split`, which also works on meta)."""

    def merge(self, theirs: Sequence[Tensor]) -> Tensor: ...
    def split(self, ours: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True)
class Stacked:
    """Tensors of equal shape, one above the other."""

    parts: int = 1

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        return theirs[0] if self.parts == 1 else torch.cat(list(theirs))

    def split(self, ours: Tensor) -> list[Tensor]:
        return [ours] if self.parts == 1 else list(ours.chunk(self.parts))  # a scalar cannot be cut


@dataclass(frozen=True)
class Conv1d:
    """A convolution of width 1 in theirs, (out, in, 1); a matrix, (out, in), in ours."""

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        return theirs[0].squeeze(-1) if theirs[0].dim() == 3 else theirs[0]

    def split(self, ours: Tensor) -> list[Tensor]:
        return [ours.unsqueeze(-1) if ours.dim() == 2 else ours]


@dataclass(frozen=True)
class PerHead:
    """Rows in the order (head, q | k | v, channel), as in Karlo, GLIDE and older ADMs; ours are (q | k | v, head, channel).

    Split into thirds instead, such a matrix loads without complaint and paints noise. `conv`: it is a Conv1d's.
    """

    heads: int
    parts: int
    conv: bool = False

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        rows = Conv1d().merge(theirs) if self.conv else theirs[0]
        return rows.unflatten(0, (self.heads, self.parts, -1)).transpose(0, 1).flatten(0, 2)

    def split(self, ours: Tensor) -> list[Tensor]:
        rows = ours.unflatten(0, (self.parts, self.heads, -1)).transpose(0, 1).flatten(0, 2)
        return Conv1d().split(rows) if self.conv else [rows]


@dataclass(frozen=True)
class ChannelMajor:
    """A projection to several tokens whose rows are in the order (channel, token); ours are (token, channel)."""

    tokens: int

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        return theirs[0].unflatten(0, (-1, self.tokens)).transpose(0, 1).flatten(0, 1)

    def split(self, ours: Tensor) -> list[Tensor]:
        return [ours.unflatten(0, (self.tokens, -1)).transpose(0, 1).flatten(0, 1)]


@dataclass(frozen=True)
class Transposed:
    """A matrix used as x @ P in theirs, (in, out); a linear layer's, (out, in), in ours."""

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        return theirs[0].T

    def split(self, ours: Tensor) -> list[Tensor]:
        return [ours.T]


@dataclass(frozen=True)
class Unsqueezed:
    """Theirs has `leading` dimensions of size 1 before ours."""

    leading: int = 1

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        return theirs[0].reshape(theirs[0].shape[self.leading :])

    def split(self, ours: Tensor) -> list[Tensor]:
        return [ours[(None,) * self.leading]]


@dataclass(frozen=True)
class Filled:
    """Theirs has no such tensor; ours is set to `value` everywhere, and left out on the way back."""

    value: float

    def split(self, ours: Tensor) -> list[Tensor]:
        return []

    def merge(self, theirs: Sequence[Tensor]) -> Tensor:
        raise AssertionError("there is nothing to merge: `to_ours` fills it")


SAME, PAIR, STACKED = Stacked(1), Stacked(2), Stacked(3)


@dataclass(frozen=True)
class Rule:
    """`ours`, a module or tensor of ours, comes from `theirs` by `plan`."""

    ours: str
    theirs: str | tuple[str, ...]
    plan: Plan = SAME

    def under(self, ours: str, theirs: str) -> "Rule":
        """The same rule for a module that lies under `ours` here and under `theirs` there."""
        names = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        return Rule(_join(ours, self.ours), tuple(_join(theirs, name) for name in names), self.plan)

    def sources(self, rest: str) -> tuple[str, ...]:
        """The names in theirs of our tensor `ours` + `rest`."""
        names = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        return tuple(name + rest for name in names)


Table = Sequence[Rule]


def nested(table: Table, ours: str, theirs: str) -> list[Rule]:
    """The table for a module that lies under `ours` here and under `theirs` there."""
    return [rule.under(ours, theirs) for rule in table]


def to_ours(
    table: Table,
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    *,
    where: str,
    ignored: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Their `state` as the state dict that `expected`, of a network on the meta device, describes.

    Tensors that no plan rearranges stay as they are, views of a mapped file. `ignored`: regular expressions for what of
    theirs is no weight, such as a buffer of positions. WeightsError begins with `where` and names the tensor in their words.
    """
    found = {name: _find(table, name) for name in expected}
    places = {
        source: place
        for name, (rule, sources) in found.items()
        for source, place in zip(sources, rule.plan.split(expected[name]), strict=True)
    }
    surplus = {name for name in state.keys() - places.keys() if not any(re.fullmatch(p, name) for p in ignored)}
    refuse(where, "the tensor {} is missing", places.keys() - state.keys())
    refuse(where, "the tensor {} has no place in this network", surplus)
    for source, place in places.items():
        _check(source, state[source], place, where)
    ours: dict[str, Tensor] = {}
    for name, (rule, sources) in found.items():
        given = [state[source] for source in sources]
        ours[name] = rule.plan.merge(given).contiguous() if given else _filled(rule, expected[name])
    return ours


def to_theirs(table: Table, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state` under their names: the inverse of `to_ours`, bit for bit."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        rule, sources = _find(table, name)
        pieces = rule.plan.split(tensor)
        theirs |= {source: piece.contiguous() for source, piece in zip(sources, pieces, strict=True)}
    return theirs


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What of `state` lies under `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _find(table: Table, name: str) -> tuple[Rule, tuple[str, ...]]:
    """The longest rule for a tensor of ours, and its names in theirs."""
    fitting = [rule for rule in table if name == rule.ours or name.startswith(rule.ours + ".")]
    assert fitting, f"no rule says where {name} comes from"
    rule = max(fitting, key=lambda rule: len(rule.ours))
    return rule, rule.sources(name.removeprefix(rule.ours))


def _filled(rule: Rule, place: Tensor) -> Tensor:
    assert isinstance(rule.plan, Filled)
    return torch.full(place.shape, rule.plan.value, dtype=place.dtype)


def _check(name: str, given: Tensor, place: Tensor, where: str) -> None:
    fits = given.dtype in FLOATS if place.is_floating_point() else given.dtype == place.dtype
    if given.shape != place.shape or not fits:
        raise WeightsError(f"{where}: {name} is {describe(given)}, the network expects {describe(place)}")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name
