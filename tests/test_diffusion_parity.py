"""Schedules and samplers against diffusers', step by step with the same network and the same noise."""

from collections.abc import Callable

import pytest
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm, scheduling_unclip
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from torch import Tensor

from unclip.diffusion.guidance import GuidanceConfig, clip, dynamic_threshold
from unclip.diffusion.process import DiffusionConfig, Prediction, interpret, q_sample
from unclip.diffusion.samplers import ddim, ddpm, dpm_solver_pp_2m, drive
from unclip.diffusion.schedule import Schedule, make, respace, spacing
from unclip.rng import Rng

NAMES = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
SHAPE = (2, 3, 4, 4)


class Tape(Rng):
    """Noise written down once and played to both sides: element by element, in the order of the draws."""

    def __init__(self):
        super().__init__(range(SHAPE[0]))
        self.start, *noise = [super(Tape, self).normal(SHAPE[1:]) for _ in range(60)]
        self._ours, self._theirs = iter(noise), iter(noise)

    def normal(self, shape) -> Tensor:
        return next(self._ours)

    def randn_tensor(self, shape, **_: object) -> Tensor:
        return next(self._theirs)


def network(x: Tensor, t: int, channels: int = 3) -> Tensor:
    """Any smooth function will do for a network."""
    mean = 0.8 * torch.tanh(x) + 0.3 * torch.sin(torch.tensor(0.01 * t)) * x.flip(-1)
    return mean if channels == 3 else torch.cat([mean, torch.cos(3 * x)], dim=1)


def ours(config: DiffusionConfig, schedule: Schedule, threshold: str = "static") -> Callable[[Tensor, int], Prediction]:
    guidance = GuidanceConfig.parse({"threshold": threshold})

    def predict(x: Tensor, t: int) -> Prediction:
        return clip(interpret(config, schedule, network(x, t, 6 if config.learn_sigma else 3), x, t), guidance)

    return predict


def theirs(scheduler, x: Tensor, channels: int = 3, **options: object) -> Tensor:
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, int(t), channels), int(t), x, **options).prev_sample
    return x


@pytest.mark.parametrize("name", NAMES)
def test_schedules_agree(name):
    peer = DDPMScheduler(beta_schedule=NAMES[name])
    schedule = make(name, 1000)
    torch.testing.assert_close(schedule.betas.float(), peer.betas, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(schedule.alpha_bar.float(), peer.alphas_cumprod, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 15, 27, 50, 64, 250, 999, 1000])
def test_trailing_timesteps_agree(n):
    peer = DDIMScheduler(timestep_spacing="trailing")
    peer.set_timesteps(n)
    assert spacing(n, 1000) == peer.timesteps.flip(0).tolist()


@pytest.mark.parametrize("n", [2, 3, 7, 15, 19, 21, 25, 27, 50, 55, 75, 250, 667])
def test_karlos_timesteps_agree(n):
    peer = UnCLIPScheduler()
    peer.set_timesteps(n)
    assert spacing(f"karlo{n}", 1000) == peer.timesteps.flip(0).tolist()


def test_adding_noise_agrees():
    x0, noise, t = Tape().start, Tape().normal(SHAPE[1:]), torch.tensor([3, 900])
    expected = DDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(x0, noise, t)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(q_sample(make("cosine"), x0, t, noise), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
@pytest.mark.parametrize("spec", ["ddim20", "even25", "10,10,3,2,2", "fast27"])
def test_ddpm_agrees(monkeypatch, name, prediction, variance, spec):
    # all of these spacings keep t = 0; of one that does not, diffusers leaves noise in the result
    learned = variance == "learned"
    config = DiffusionConfig(schedule=name, prediction=prediction, learn_sigma=learned)
    schedule, tape = config.noise_schedule(), Tape()
    short = respace(schedule, spec)
    kind = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    peer = DDPMScheduler(beta_schedule=NAMES[name], prediction_type=PREDICTIONS[prediction], variance_type=kind)
    peer.set_timesteps(timesteps=short.timesteps.flip(0).tolist())
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", tape.randn_tensor)
    expected = theirs(peer, tape.start, 6 if learned else 3)
    actual = drive(ddpm(short, tape.start, rng=tape, variance=variance), ours(config, schedule))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_agrees(monkeypatch, name, prediction, eta, steps):
    config = DiffusionConfig(schedule=name, prediction=prediction)
    schedule, tape = config.noise_schedule(), Tape()
    peer = DDIMScheduler(beta_schedule=NAMES[name], prediction_type=PREDICTIONS[prediction], timestep_spacing="trailing")
    peer.set_timesteps(steps)
    monkeypatch.setattr(scheduling_ddim, "randn_tensor", tape.randn_tensor)
    expected = theirs(peer, tape.start, eta=eta, use_clipped_model_output=True)
    actual = drive(ddim(respace(schedule, steps), tape.start, rng=tape, eta=eta), ours(config, schedule))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with numpy 2
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction", ["x0", "v"])
@pytest.mark.parametrize("steps", [1, 2, 10, 25])
def test_dpm_solver_agrees(name, prediction, steps):
    config = DiffusionConfig(schedule=name, prediction=prediction)
    schedule, start = config.noise_schedule(), Tape().start
    peer = DPMSolverMultistepScheduler(
        beta_schedule=NAMES[name], prediction_type=PREDICTIONS[prediction], timestep_spacing="trailing"
    )
    peer.set_timesteps(steps)
    actual = drive(dpm_solver_pp_2m(respace(schedule, steps), start), ours(config, schedule, threshold="none"))
    torch.testing.assert_close(actual, theirs(peer, start), rtol=0, atol=1e-4)


@pytest.mark.parametrize("prediction", ["eps", "x0"])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("steps", [7, 25])
def test_unclip_agrees(monkeypatch, prediction, learned, steps):
    config = DiffusionConfig(prediction=prediction, learn_sigma=learned)
    schedule, tape = config.noise_schedule(), Tape()
    kind = "learned_range" if learned else "fixed_small_log"
    peer = UnCLIPScheduler(variance_type=kind, prediction_type=PREDICTIONS[prediction])
    peer.set_timesteps(steps)
    # its 1 - beta has no digits left in fp32 where alpha_bar jumps from 2e-9 to 7e-2
    peer.betas, peer.alphas, peer.alphas_cumprod = schedule.betas, 1 - schedule.betas, schedule.alpha_bar
    monkeypatch.setattr(scheduling_unclip, "randn_tensor", tape.randn_tensor)
    expected, times = tape.start, peer.timesteps.tolist()
    for t, before in zip(times, [*times[1:], None], strict=True):
        output = network(expected, t, 6 if learned else 3)
        expected = peer.step(output, t, expected, prev_timestep=before).prev_sample
    short = respace(schedule, f"karlo{steps}")
    actual = drive(ddpm(short, tape.start, rng=tape, variance="learned" if learned else "small"), ours(config, schedule))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_dynamic_thresholds_agree():
    x0 = 4 * torch.randn(3, 3, 67, 1, generator=torch.Generator().manual_seed(0))  # 0.995 of 200 gaps is a rank
    peer = DDPMScheduler(thresholding=True, sample_max_value=100.0)
    torch.testing.assert_close(dynamic_threshold(x0), peer._threshold_sample(x0))
