"""Training the diffusion prior (2204.06125, section 2.2): predict the clean z from a caption, dropped 10 % of the time."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from unclip.config import Config
from unclip.data.order import Order
from unclip.data.pool import NULL_ROW, Embedded, Pool
from unclip.diffusion.guidance import GuidanceConfig
from unclip.diffusion.process import DiffusionConfig, Prediction, draw_timesteps, interpret, q_sample, training_losses
from unclip.diffusion.samplers import measure_x0_error
from unclip.errors import ConfigError
from unclip.models.clip import Text
from unclip.models.prior import X0_ERROR_KNOTS, Prior, PriorConfig
from unclip.rng import Rng
from unclip.seeds import mix
from unclip.stages import SamplingConfig, sample_prior


class PriorData(Config):
    pool: Path  # an embedded pool, or an embedded index
    valid: Path | None = None
    clip: str | None = None  # the fingerprint that both pools must have been embedded with
    unit: bool | None = None  # whether both pools' z have length one, as an index's have; such a prior gives no other z
    seed: int = 0
    drop_text: float = Field(default=0.1, ge=0, le=1)


class PriorObjective:
    """Trains a prior of `model`'s shape on the embedded pool, or index, `data.pool`."""

    def __init__(self, model: PriorConfig, diffusion: DiffusionConfig, data: PriorData):
        self.embedded = Embedded(data.pool, clip=data.clip)
        self.valid_embedded = None if data.valid is None else Embedded(data.valid, clip=self.embedded.clip)
        for path, embedded in ((data.pool, self.embedded), (data.valid, self.valid_embedded)):
            expected = self.embedded.unit if data.unit is None else data.unit
            if embedded is not None and embedded.unit != expected:
                raise ConfigError(f"{path} holds z of {_lengths(embedded.unit)}, expected {_lengths(expected)}")
        given = (self.embedded.z.shape[1], self.embedded.pooled.shape[1], self.embedded.states.shape[2])
        expected = (model.embed, model.text_embed, model.text_width)
        if given != expected:
            raise ConfigError(f"{data.pool} holds z, text and states of widths {given}, but the prior's are {expected}")
        if self.embedded.states.shape[1] > model.context:
            raise ConfigError(f"{data.pool} holds captions of {self.embedded.states.shape[1]} tokens, model.context is less")
        if diffusion.learn_sigma:
            raise ConfigError("diffusion.learn_sigma: the prior has no outputs for a variance")
        self.data = data
        self.diffusion = diffusion
        self.schedule = diffusion.noise_schedule()
        self.module = Prior(model)
        self.module.set_statistics(self.embedded.z.mean(0), self.embedded.z.std(0))
        self.order = Order(len(self.embedded.z), data.seed)

    def prepare(self, say: Callable[[str], object]) -> None:
        return None

    def batch(self, positions: Sequence[int]) -> dict[str, Tensor]:
        rows = [self.order(position) for position in positions]
        caption = self.embedded.caption[rows]
        dropped = (
            torch.tensor([mix(self.data.seed, position) for position in positions], dtype=torch.float64)
            < self.data.drop_text * 2**64
        )
        caption = torch.where(dropped, NULL_ROW, caption)
        mask = self.embedded.mask[caption]
        length = int(mask.sum(1).max())
        return {
            "z": self.embedded.z[rows],
            "pooled": self.embedded.pooled[caption],
            "states": self.embedded.states[caption, :length],
            "mask": mask[:, :length],
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        z0 = self.module.standardise(batch["z"])
        t = draw_timesteps(self.schedule, len(z0), generator, z0.device)
        noise = torch.randn(z0.shape, generator=generator, device=z0.device)
        z_t = q_sample(self.schedule, z0, t, noise)
        output = self.module(z_t, t, Text(batch["pooled"], batch["states"].float(), batch["mask"]))
        losses = training_losses(self.diffusion, self.schedule, output, z0, z_t, noise, t)
        return losses.mean(), {"cosine": F.cosine_similarity(output.detach().float(), z0).mean()}

    def preview(self, module: Prior) -> None:
        return None

    def evaluate(self, module: Prior) -> dict[str, float]:
        """Of sampled z on the validation pool, by split: cosine to the true z, standardised, and the spread that is kept.

        spread: the trace of the sampled z's covariance over the true z's; 1 keeps all diversity.
        Measures for Analytic-DPM how far off the module's predictions are, and puts that into it.
        """
        if self.data.valid is None or self.valid_embedded is None:
            return {}
        embedded, device = self.valid_embedded, next(module.parameters()).device
        splits = _splits(self.data.valid, len(embedded.z))
        figures = {}
        for split in dict.fromkeys(splits):
            rows = [index for index, name in enumerate(splits) if name == split][:256]
            text = embedded.text(embedded.caption[rows]).to(device)
            null = embedded.text(torch.tensor([NULL_ROW])).to(device)
            sampling = SamplingConfig(steps=25, guidance=GuidanceConfig(threshold="none"))
            z = sample_prior(module, self.diffusion, sampling, text, null, Rng(range(len(rows)), device=device))
            sampled, true = module.standardise(z), module.standardise(embedded.z[rows].to(device))
            figures[f"{split}/cosine"] = float(F.cosine_similarity(sampled, true).mean())
            figures[f"{split}/spread"] = float(sampled.var(0).sum() / true.var(0).sum())
        if len(self.schedule) >= X0_ERROR_KNOTS:
            self._measure_error(module, embedded)
        return figures

    def _measure_error(self, module: Prior, embedded: Embedded) -> None:
        rows = list(range(0, len(embedded.z), -(-len(embedded.z) // 512)))
        device = next(module.parameters()).device
        text = embedded.text(embedded.caption[rows]).to(device)

        def predict(z_t: Tensor, t: int) -> Prediction:
            output = module(z_t, torch.full((len(z_t),), t, device=device), text)
            return interpret(self.diffusion, self.schedule, output, z_t, t)

        z0, rng = module.standardise(embedded.z[rows].to(device)), Rng(range(len(rows)), device=device)
        module.set_x0_error(measure_x0_error(self.schedule, predict, z0, rng=rng, knots=X0_ERROR_KNOTS))


def _splits(path: Path, count: int) -> list[str]:
    """The split of each sample of a pool; an index knows of none."""
    if not (path / "pool.json").exists():
        return ["valid"] * count
    return [sample["meta"].get("split", "valid") for sample in Pool(path).samples]


def _lengths(unit: bool) -> str:
    return "length one" if unit else "CLIP's own lengths"
