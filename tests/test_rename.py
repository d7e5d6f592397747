"""Tables of names: what every plan does to the numbers and undoes, and what is said of tensors that do not fit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unclip.errors import WeightsError
from unclip.weights.rename import (
    PAIR,
    SAME,
    STACKED,
    ChannelMajor,
    Conv1d,
    Filled,
    PerHead,
    Rule,
    Stacked,
    Transposed,
    Unsqueezed,
    nested,
    to_ours,
    to_theirs,
    under,
)

SMALL = st.integers(1, 4)
PLANS = {
    "same": lambda a, b, c: (SAME, (a, b, c)),
    "a scalar": lambda a, b, c: (SAME, ()),
    "pair": lambda a, b, c: (PAIR, (2 * a, b)),
    "stacked": lambda a, b, c: (STACKED, (3 * a, b)),
    "five": lambda a, b, c: (Stacked(5), (5 * a,)),
    "convolution": lambda a, b, c: (Conv1d(), (a, b)),
    "convolution's bias": lambda a, b, c: (Conv1d(), (a,)),
    "heads": lambda a, b, c: (PerHead(a, 3), (3 * a * b, c)),
    "heads' bias": lambda a, b, c: (PerHead(a, 2), (2 * a * b,)),
    "heads of a convolution": lambda a, b, c: (PerHead(a, 3, conv=True), (3 * a * b, c)),
    "heads of a convolution's bias": lambda a, b, c: (PerHead(a, 2, conv=True), (2 * a * b,)),
    "channels first": lambda a, b, c: (ChannelMajor(a), (a * b, c)),
    "transposed": lambda a, b, c: (Transposed(), (a, b)),
    "unsqueezed": lambda a, b, c: (Unsqueezed(a), (b, c)),
}


@pytest.mark.parametrize("plan", PLANS)
@given(a=SMALL, b=SMALL, c=SMALL)
@settings(max_examples=20, deadline=None)
def test_a_plan_takes_apart_what_it_puts_together(plan, a, b, c):
    plan, shape = PLANS[plan](a, b, c)
    ours = torch.arange(math.prod(shape), dtype=torch.float32).view(shape)
    theirs = plan.split(ours)
    merged = plan.merge(theirs)
    assert merged.shape == ours.shape
    assert torch.equal(merged, ours)
    assert all(torch.equal(one, other) for one, other in zip(plan.split(merged), theirs, strict=True))
    on_meta = plan.split(ours.to("meta"))  # how shapes are known before anything is read
    assert [part.shape for part in on_meta] == [part.shape for part in theirs]


def test_heads_are_interleaved_as_in_the_original_files():
    """Two heads of two channels: q, k and v of the first head, then those of the second."""
    names = [f"{part}{head}{channel}" for head in (0, 1) for part in "qkv" for channel in (0, 1)]
    theirs = torch.arange(12.0)
    ours = PerHead(2, 3).merge([theirs])
    assert [names[int(row)] for row in ours] == [
        f"{part}{channel}" for part in "qkv" for channel in ("00", "01", "10", "11")
    ]
    convolved = PerHead(2, 3, conv=True).merge([theirs.view(12, 1, 1)])
    assert torch.equal(convolved, ours[:, None])
    assert not torch.equal(ours, STACKED.merge(list(theirs.chunk(3))))


def test_tokens_are_laid_out_channel_by_channel_in_the_original_files():
    names = ["channel 0, token 0", "channel 0, token 1", "channel 1, token 0", "channel 1, token 1"]
    ours = ChannelMajor(2).merge([torch.arange(4.0)[:, None]])
    assert [names[int(row)] for row in ours] == [names[i] for i in (0, 2, 1, 3)]


TABLE = [
    Rule("norm", "ln"),
    Rule("blocks.0", "layers.0"),
    Rule("blocks.0.attention.qkv", ("layers.0.q", "layers.0.k", "layers.0.v"), STACKED),
    Rule("project.weight", "proj", Transposed()),
    Rule("count", "steps"),
    Rule("error", (), Filled(math.nan)),
]
EXPECTED = {
    "norm.weight": torch.empty(4),
    "blocks.0.attention.qkv.weight": torch.empty(6, 4),
    "blocks.0.up.weight": torch.empty(8, 4),
    "project.weight": torch.empty(2, 4),
    "count": torch.empty(1, dtype=torch.int64),
    "error": torch.empty(3),
}


def published(**changes: Tensor | None) -> dict[str, Tensor]:
    """A state dict for that table; a change of None leaves a tensor out, and two underscores are a dot."""
    shapes = {"ln.weight": (4,), **{f"layers.0.{part}.weight": (2, 4) for part in "qkv"}}
    shapes |= {"layers.0.up.weight": (8, 4), "proj": (4, 2)}
    state = {name: torch.rand(shape) for name, shape in shapes.items()} | {"steps": torch.tensor([7])}
    state |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


def test_a_state_dict_goes_there_and_back_bit_for_bit():
    theirs = published()
    ours = to_ours(TABLE, EXPECTED, theirs, where="here")
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in EXPECTED.items()}
    assert ours["error"].isnan().all()
    assert torch.equal(ours["project.weight"], theirs["proj"].T)
    back = to_theirs(TABLE, ours)
    assert back.keys() == theirs.keys()  # what was filled in is not theirs
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


def test_tensors_stay_what_they_were_where_nothing_is_rearranged():
    theirs = published(ln__weight=torch.rand(4, dtype=torch.float64))
    ours = to_ours(TABLE, EXPECTED, theirs, where="here")
    assert ours["norm.weight"].data_ptr() == theirs["ln.weight"].data_ptr()
    assert ours["norm.weight"].dtype == torch.float64


def test_the_longest_rule_wins_wherever_it_stands():
    expected = {"blocks.0.attention.qkv.weight": torch.empty(6, 4), "blocks.0.up.weight": torch.empty(8, 4)}
    state = {name: tensor for name, tensor in published().items() if name.startswith("layers")}
    for table in (TABLE, TABLE[::-1]):
        ours = to_ours(table, expected, state, where="here")
        assert torch.equal(ours["blocks.0.attention.qkv.weight"][2:4], state["layers.0.k.weight"])


def test_a_rule_is_for_a_module_and_not_for_every_name_that_begins_like_it():
    table = [Rule("block", "a"), Rule("block2", "b")]
    assert to_theirs(table, {"block2.weight": torch.ones(1)}).keys() == {"b.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers__0__k__weight": None}, "here: the tensor layers.0.k.weight is missing"),
        ({"layers__0__k__weight": None, "proj": None}, "here: the tensor layers.0.k.weight is missing (and 1 more)"),
        ({"logit_scale": torch.ones(())}, "here: the tensor logit_scale has no place in this network"),
        (
            {"layers__0__v__weight": torch.ones(3, 4)},
            "here: layers.0.v.weight is float32 (3, 4), the network expects float32 (2, 4)",
        ),
        ({"ln__weight": torch.ones(())}, "here: ln.weight is float32 (), the network expects float32 (4,)"),
        ({"proj": torch.ones(2, 4)}, "here: proj is float32 (2, 4), the network expects float32 (4, 2)"),
        (
            {"ln__weight": torch.ones(4, dtype=torch.int8)},
            "here: ln.weight is int8 (4,), the network expects float32 (4,)",
        ),
        ({"ln__weight": torch.ones(4) > 0}, "here: ln.weight is bool (4,), the network expects float32 (4,)"),
        ({"steps": torch.ones(1)}, "here: steps is float32 (1,), the network expects int64 (1,)"),
    ],
)
def test_what_does_not_fit_is_named_in_their_words(changes, message):
    with pytest.raises(WeightsError) as error:
        to_ours(TABLE, EXPECTED, published(**changes), where="here")
    assert str(error.value) == message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_kind_of_float_fits_a_float(dtype):
    ours = to_ours(TABLE, EXPECTED, published(ln__weight=torch.ones(4, dtype=dtype)), where="here")
    assert ours["norm.weight"].dtype == dtype


def test_a_square_matrix_that_is_transposed_cannot_be_seen():
    """Its shape is the same: only a network's answers would tell."""
    table, expected = [Rule("up", "fc")], {"up.weight": torch.empty(2, 2)}
    state = {"fc.weight": torch.arange(4.0).view(2, 2)}
    assert torch.equal(
        to_ours(table, expected, {"fc.weight": state["fc.weight"].T}, where="here")["up.weight"].T, state["fc.weight"]
    )


def test_what_is_ignored_is_left_out_and_nothing_else_is():
    beside = {"text.position_ids": torch.arange(3), "position_ids": torch.arange(3)}
    ours = to_ours(TABLE, EXPECTED, published() | beside, where="here", ignored=[r".*position_ids"])
    assert ours.keys() == EXPECTED.keys()
    with pytest.raises(WeightsError, match="position_ids_of_words has no place"):
        to_ours(TABLE, EXPECTED, published(position_ids_of_words=torch.ones(1)), where="here", ignored=[r".*position_ids"])


def test_tables_nest_and_states_are_cut():
    rules = nested([Rule("qkv", ("q", "k"), PAIR), Rule("", "norm")], "blocks.3", "layers.3")
    assert [(rule.ours, rule.theirs) for rule in rules] == [
        ("blocks.3.qkv", ("layers.3.q", "layers.3.k")),
        ("blocks.3", ("layers.3.norm",)),
    ]
    assert nested([Rule("up", "fc")], "blocks", "")[0].theirs == ("fc",)
    assert under({"model.a": torch.ones(1), "models.b": torch.ones(1)}, "model.").keys() == {"a"}
