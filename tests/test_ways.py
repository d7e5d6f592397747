"""The way between ends: the great circle, and where the frames are on it."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from unclip import ways
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.request import Options


def test_slerp_walks_the_circle_evenly_and_keeps_the_length():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    for theta in (0.0, 0.25, 0.5, 1.0):
        angle = theta * math.pi / 2
        torch.testing.assert_close(ways.slerp(a, b, theta), 3 * torch.tensor([math.cos(angle), math.sin(angle)]))
    assert ways.slerp(a, 3 * b, 0.5).norm().item() == pytest.approx(6.0)
    torch.testing.assert_close(ways.slerp(a, 2 * a, 0.5), 1.5 * a)


def test_a_way_through_three_points_passes_each():
    points = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    way = ways.along(points, [0, 0.5, 1, 1.5, 2])
    torch.testing.assert_close(way[::2], points)
    torch.testing.assert_close(way[3], ways.slerp(points[1], points[2], 0.5))
    torch.testing.assert_close(ways.along(points, [1.25], torch.lerp)[0], 0.75 * points[1] + 0.25 * points[2])


def test_a_layout_fades_from_one_end_to_the_other(painter, monkeypatch):
    stage = painter.decoder
    values = stage.cfg.model_dump() | {"layout": {"side": 4, "width": 24}}
    values["unet"] |= {"in_channels": stage.cfg.unet.in_channels + 3}
    drawing, found = Decoder(cfg := DecoderConfig.parse(values)).eval(), []
    drawing.unet.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0][:, 3:6]))
    own = SimpleNamespace(module=drawing, cfg=cfg, diffusion=stage.diffusion, sampling=stage.sampling)
    assert painter.layout(torch.ones(2, cfg.embed)) is None
    monkeypatch.setattr(painter, "decoder", own)
    few = Options(steps=1, guidance=3.0)
    way = ways.between(painter, ["a red disc", "a blue disc"], fixed=True, seed=0, options=few, progress=None)
    way.paint(painter, [0, 0.25, 1], cfg.unet.image_size, None)
    first, last = painter.layout(way.z)
    wanted = F.interpolate(torch.stack([first, torch.lerp(first, last, 0.25), last]), cfg.unet.image_size, mode="bilinear")
    torch.testing.assert_close(torch.cat([both[:1] for both in found]), wanted)
    assert drawing.layout is not None
    nothing = drawing.layout(drawing.null_z[None], painter.null().pooled)
    torch.testing.assert_close(found[1][1:], F.interpolate(nothing, cfg.unet.image_size, mode="bilinear"))


def test_frames_are_chosen_where_clip_sees_even_steps_and_none_back():
    angles = torch.tensor([0.0, 0.02, 0.04, 0.3, 0.25, 0.5, 0.55, 0.8, 1.0]) * math.pi / 2  # a stop, a step back, leaps
    seen = torch.stack([angles.cos(), angles.sin(), torch.zeros(9)], dim=1)
    ends = torch.eye(3)
    places = ways.fine_places(2, 3)
    assert places == [i / 8 for i in range(9)]
    assert ways.paced(places, seen, ends[:2], 3) == [0, 5 / 8, 1]
    assert ways.paced(places, seen, ends[:2], 5) == [0, 4 / 8, 5 / 8, 7 / 8, 1]
    # Two more frames are to be had without a step back, and never more than one of the two that lie in one.
    chosen = ways.paced(places, seen, ends[:2], 8)
    assert [place * 8 in (3, 4) for place in chosen].count(True) == 1
    # On to a third end, as fast as z goes: frames that belong at an end stay there, even when what CLIP sees disagrees.
    even = torch.arange(1, 9) / 8 * math.pi / 2
    seen = torch.cat([seen, torch.stack([torch.zeros(8), even.cos(), even.sin()], dim=1)])
    assert ways.paced(ways.fine_places(3, 5), seen, ends, 5) == [0, 5 / 8, 1, 1.5, 2]
    assert ways.paced(ways.fine_places(3, 5), seen.flip(0), ends, 5)[::2] == [0, 1, 2]


def test_thetas_are_chosen_where_what_clip_sees_of_the_change_rises_evenly():
    assert ways.fine_thetas((0.05, 0.2, 0.45)) == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45]
    leap = torch.tensor([0.1, 0.12, 0.15, 0.5, 0.45, 0.62, 0.7, 0.66, 0.3])
    assert ways.risen(leap, 2) == [0, 6]  # beyond, more of it spoils the picture
    assert ways.risen(leap, 3) == [0, 4, 6]
    assert ways.risen(leap, 4) == [0, 2, 3, 6]
    assert ways.risen(leap.flip(0), 3) == [0, 1, 2]
    chosen = ways.risen(torch.zeros(9), 3)  # nothing to choose by: still thetas that rise, from the first
    assert chosen[0] == 0 < chosen[1] < chosen[2]
    assert ways.risen(leap[:5], 5) == [0, 1, 2, 3, 4]
