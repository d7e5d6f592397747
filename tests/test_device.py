"""Where and how networks run: the device by name, autocast by precision, weights kept as they are multiplied."""

import pytest
import torch
from torch import nn

from unclip import device
from unclip.device import autocast, has_bf16, pick_device, wants_bf16, weight_types
from unclip.errors import ConfigError

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 16), nn.LayerNorm(16)).eval()


def test_pick_device_names_what_there_is():
    assert pick_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"'abacus' is not there: this machine has .*cpu"):
        pick_device("abacus")


def test_precision_decides_about_bf16_and_fp32_never_takes_it():
    assert wants_bf16(CPU, "bf16")
    assert not wants_bf16(CPU, "fp32")
    with autocast(CPU, "bf16"):
        assert torch.is_autocast_enabled("cpu")
    with autocast(CPU, "fp32"):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("amx", "avx512", "intel", "expected"),
    [(True, True, True, True), (False, True, False, True), (False, True, True, False), (False, False, False, False)],
)
def test_bf16_is_for_processors_that_gain_by_it(monkeypatch, amx, avx512, intel, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(device, "_made_by_intel", lambda: intel)
    assert has_bf16(CPU) is expected
    assert wants_bf16(CPU, "auto") is expected


def test_weights_kept_in_bf16_give_the_bytes_that_autocast_gives():
    x = torch.randn(2, 3, 4, 4)
    module = network()
    kept = {name: tensor.to(weight_types(module, CPU, "bf16")[name]) for name, tensor in module.state_dict().items()}
    assert [tensor.dtype for tensor in kept.values()] == [torch.bfloat16] * 4 + [torch.float32] * 2
    with torch.no_grad(), autocast(CPU, "bf16"):
        converted_at_each_call = module(x)
        module.load_state_dict(kept, assign=True)
        assert torch.equal(module(x), converted_at_each_call)


def test_fp32_keeps_every_weight():
    assert set(weight_types(network(), CPU, "fp32").values()) == {torch.float32}


def test_a_lone_layer_has_names_too():
    assert weight_types(torch.nn.Linear(2, 2), CPU, "bf16") == {"weight": torch.bfloat16, "bias": torch.bfloat16}
