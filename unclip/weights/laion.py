"""LAION's diffusion prior out of the checkpoints of DALLE2-pytorch (hub: laion/DALLE2-PyTorch, folder prior), and back.

A checkpoint is the trainer's (`ema_model`, `ema`, `model`, optimizer, version), the tracker's (`model`, the average already,
version, config), or a bare state dict. The moving average is taken wherever there is one. The network lies under `net.`;
beside it are the tables of the noise schedule, which say what that was, and often the whole CLIP, which is left out.

The shapes tell the network's config, all but what changed between versions without a trace in them: see
`models.laion_prior`. A file without a version is taken for one of those that its tensors allow, LAION's own for 1.0.0: it
lay on the hub in July 2022, a week before attention changed. Settings that stand in the training config alone, which is
`prior_config.json` or the checkpoint's `config`, are the package's defaults where there is none.

Names have changed once: a norm's weight was `gamma`, with a `beta` of zeros, until 0.15.4, and is `g` since.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from unclip.diffusion import schedule as schedules
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import ConfigError, WeightsError
from unclip.models.laion_prior import LaionPrior, LaionPriorConfig, Nulls, rotary_frequencies
from unclip.weights.foreign import Inert, read_pickle
from unclip.weights.rename import Filled, Rule, Unsqueezed, nested, to_ours, under
from unclip.weights.store import read_json

# Objects that a trainer's checkpoint has beside its tensors, and why nothing is lost with them.
INERT = frozenset(
    {
        "packaging.version.Version",  # of the package that saved; its numbers are in the state
        "packaging.version._Version",
        "packaging._structures.InfinityType",  # parts of a Version that are not there, as it sorts them
        "packaging._structures.NegativeInfinityType",
        "pytorch_warmup.base.LinearWarmup",  # the learning rate's, which holds the optimizer too
        "torch.optim.adam.Adam",
        "torch.optim.adamw.AdamW",
    }
)

CLIP_CONTEXT = 77  # tokens, where the checkpoint has no padding to tell
Version = tuple[int, ...]
# What changed in the network without a change in its tensors, from each version on.
ERAS: list[tuple[Version, dict[str, Any]]] = [
    ((0,), {"attention": "dot", "bias_gain": 1.0, "divided": "none"}),
    ((0, 16, 2), {"attention": "dot", "bias_gain": 1024.0, "divided": "all"}),
    ((0, 23, 3), {"attention": "dot", "bias_gain": 128.0, "divided": "last"}),
    ((1, 4, 3), {"attention": "cosine", "bias_gain": 1.0, "divided": "last"}),
]

_QUERY = "net.learned_query"
_TRANSFORMER = "net.causal_transformer"
_PADDING: dict[Nulls, str] = {"learned": "net.null_text_encodings", "padding": "net.null_text_embed"}
_IGNORED = (
    r"(noise_scheduler\.)?(betas|\w*alphas_cumprod\w*|posterior_\w+|p2_loss_weight)",
    r"clip\..*",
    r"_dummy",
    r".*\.rotary_emb\.freqs",  # see `_check_constants`
    r".*\.beta",
)
# Settings that a network or a sampler of ours would have to know, and what they must be.
_EXPECTED = {
    "condition_on_text_encodings": True,
    "sampling_clamp_l2norm": False,
    "init_image_embed_l2norm": False,
    "net.self_cond": False,
}


class PublishedPrior(NamedTuple):
    """What a checkpoint holds: the network's config, how it is diffused, its state dict in our names."""

    config: LaionPriorConfig
    diffusion: DiffusionConfig
    state: dict[str, Tensor]


def table(cfg: LaionPriorConfig, *, gamma: bool = False) -> list[Rule]:
    """Our names and theirs; `gamma`: those of a norm until 0.15.4. `rename.to_theirs` exports with it."""
    g = "gamma" if gamma else "g"
    rules = [
        Rule("query", "net.learned_query"),
        Rule("time", "net.to_time_embeds.0"),
        *(Rule(f"time.{2 * i}", f"net.to_time_embeds.0.1.net.{name}") for i, name in enumerate(("0.0", "1.0", "2"))),
        Rule("null_text", "net.null_text_embeds", Unsqueezed(2)),
        Rule("null_z", "net.null_image_embed", Unsqueezed()),
        Rule("distance", f"{_TRANSFORMER}.rel_pos_bias.relative_attention_bias"),
        Rule("norm_in.weight", f"{_TRANSFORMER}.init_norm.{g}"),
        Rule("norm_out.weight", f"{_TRANSFORMER}.norm.{g}"),
        Rule("project", f"{_TRANSFORMER}.project_out"),
        Rule("x0_error", (), Filled(float("nan"))),
    ]
    if cfg.nulls in _PADDING:
        rules.append(Rule("padding", _PADDING[cfg.nulls], Unsqueezed()))
    block = [
        Rule("norm_attention.weight", f"0.norm.{g}"),
        Rule("q", "0.to_q"),
        Rule("kv", "0.to_kv"),
        Rule("null_kv", "0.null_kv"),
        Rule("out", "0.to_out.0"),
        Rule("norm_attended.weight", f"0.to_out.1.{g}"),
        Rule("norm_mlp.weight", f"1.0.{g}"),
        Rule("up", "1.1"),
        Rule("norm_hidden.weight", f"1.3.{g}"),
        Rule("down", "1.5"),
    ]
    for i in range(cfg.layers):
        rules += nested(block, f"blocks.{i}", f"{_TRANSFORMER}.layers.{i}")
    return rules


def read_prior(path: str | Path, *, settings: str | Path | None = None, version: str | None = None) -> PublishedPrior:
    """The prior in a checkpoint (.pth); `settings`: its `prior_config.json`, if it comes with one.

    `version`: of the package that trained it, for files that do not say or are known to say otherwise. WeightsError where
    the file is no such checkpoint, or of a network that we have not.
    """
    checkpoint = read_pickle(path, inert=INERT)
    given = None if settings is None else _read_settings(Path(settings))
    return from_checkpoint(checkpoint, where=str(path), settings=given, version=version)


def from_checkpoint(
    checkpoint: Any, *, where: str, settings: Mapping[str, Any] | None = None, version: str | None = None
) -> PublishedPrior:
    """The same of a checkpoint that is read already; messages begin with `where`. `settings` wins over its own `config`."""
    state = weights(checkpoint, where=where)
    prior = _group(settings or checkpoint.get("config"), "prior")
    _check_settings(prior, where=where)
    number = _version(checkpoint if version is None else {"version": version}) or _likely_version(state)
    cfg = _config(state, prior, number, where=where)
    _check_constants(state, cfg, where=where)
    with torch.device("meta"):
        expected = LaionPrior(cfg).state_dict()
    ours = to_ours(table(cfg, gamma=_gamma(state)), expected, state, where=where, ignored=_IGNORED)
    return PublishedPrior(cfg, _diffusion(state, prior, where=where), ours)


def weights(checkpoint: Any, *, where: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint, in their names: the moving average's where there is one."""
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{where} holds a {type(checkpoint).__name__}: expected a checkpoint of DALLE2-pytorch")
    average = under(_group(checkpoint, "ema"), "ema_model.")
    for found in (checkpoint.get("ema_model"), average, checkpoint.get("model"), checkpoint):
        if isinstance(found, dict) and _QUERY in found:
            return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
    raise WeightsError(f"{where} has no {_QUERY}: expected a checkpoint of DALLE2-pytorch's DiffusionPrior")


def _config(state: Mapping[str, Tensor], prior: Mapping[str, Any], version: Version, *, where: str) -> LaionPriorConfig:
    """What the shapes say, and of the settings what they cannot say."""

    def shape(name: str, dims: int) -> torch.Size:
        if name not in state:
            raise WeightsError(f"{where}: the tensor {name} is missing")
        if state[name].dim() != dims:
            raise WeightsError(f"{where}: {name} is of shape {tuple(state[name].shape)}, expected {dims} dimensions")
        return state[name].shape

    def has(pattern: str) -> bool:
        return any(re.fullmatch(rf"{_TRANSFORMER}\.{pattern}", name) for name in state)

    nulls, time = _nulls(state), "net.to_time_embeds.0.weight"
    embed = shape(_QUERY, 1)[0]
    numbered = (re.match(rf"{_TRANSFORMER}\.layers\.(\d+)\.", name) for name in state)
    values = {
        "embed": embed,
        "context": shape(_PADDING[nulls], 3)[1] if nulls in _PADDING else CLIP_CONTEXT,
        "layers": len({match[1] for match in numbered if match}),
        "heads": shape(f"{_TRANSFORMER}.rel_pos_bias.relative_attention_bias.weight", 2)[1],
        "head_width": shape(f"{_TRANSFORMER}.layers.0.0.null_kv", 2)[1],
        "hidden": shape(f"{_TRANSFORMER}.layers.0.1.5.weight", 2)[1],
        "timesteps": shape(time, 2)[0] if time in state else None,
        "z_scale": prior.get("image_embed_scale") or embed**0.5,
        "nulls": nulls,
        **next(changed for since, changed in reversed(ERAS) if version >= since),
        "normformer": has(r"layers\.0\.1\.3\.(g|gamma)"),
        "rotary": has(r"layers\.0\.0\.rotary_emb\.freqs"),
        "norm_in": has(r"init_norm\.(g|gamma)"),
        "norm_out": has(r"norm\.(g|gamma)"),
        "project": has(r"project_out\.weight"),
        "unit_z": bool(prior.get("sampling_final_clamp_l2norm")),
    }
    try:
        return LaionPriorConfig.parse(values, where=where)
    except ConfigError as error:
        raise WeightsError(str(error)) from None


def _nulls(state: Mapping[str, Tensor]) -> Nulls:
    for nulls, name in _PADDING.items():
        if name in state:
            return nulls
    return "masked"


def _version(checkpoint: Mapping[str, Any]) -> Version | None:
    """The package's version, if the checkpoint says it; a Version, which is not revived, has it in its state."""
    given = checkpoint.get("version")
    match given:
        case str():
            return tuple(int(number) for number in re.findall(r"\d+", given)) or None
        case Inert(state={"_key": (_, tuple(release), *_)}) | Inert(state=(_, tuple(release), *_)):
            return release
    return None


def _likely_version(state: Mapping[str, Tensor]) -> Version:
    """A version that saved such tensors."""
    if _nulls(state) == "masked":
        return (0, 15, 4) if _gamma(state) else (0, 22)
    return (1, 9) if _nulls(state) == "learned" else (1,)


def _gamma(state: Mapping[str, Tensor]) -> bool:
    return any(name.endswith(".gamma") for name in state)


def _diffusion(state: Mapping[str, Tensor], prior: Mapping[str, Any], *, where: str) -> DiffusionConfig:
    """The schedule that the checkpoint's own table is, and what the network predicts."""
    betas = state.get("noise_scheduler.betas", state.get("betas"))
    prediction = "v" if prior.get("predict_v") else "x0" if prior.get("predict_x_start", True) else "eps"
    if betas is None:
        values = {"schedule": prior.get("beta_schedule", "cosine"), "timesteps": prior.get("timesteps", 1000)}
        try:
            return DiffusionConfig.parse(values | {"prediction": prediction}, where=where)
        except ConfigError as error:
            raise WeightsError(str(error)) from None
    for name in get_args(schedules.Name):
        if _close(betas, schedules.make(name, betas.numel()).betas):
            return DiffusionConfig(schedule=name, timesteps=betas.numel(), prediction=prediction)
    raise WeightsError(f"{where}: its noise schedule is none of ours: expected {' or '.join(get_args(schedules.Name))}")


def _check_settings(prior: Mapping[str, Any], *, where: str) -> None:
    values = {**prior, **{f"net.{key}": value for key, value in _group(prior, "net").items()}}
    for key, expected in _EXPECTED.items():
        if values.get(key, expected) not in (None, expected):
            raise WeightsError(f"{where}: {key} is {values[key]!r}, expected {expected!r}: there is no such network here")


def _check_constants(state: Mapping[str, Tensor], cfg: LaionPriorConfig, *, where: str) -> None:
    """What is left out must be what we compute in its place: the frequencies of the rotations, norms' biases of zero."""
    for name, tensor in state.items():
        frequencies = name.endswith(".rotary_emb.freqs")
        if frequencies or name.endswith(".beta"):
            constant = rotary_frequencies(cfg.rotated) if frequencies else torch.zeros(())
            if not _close(tensor, constant):
                raise WeightsError(
                    f"{where}: {name} is not the constant that DALLE2-pytorch has there: no network of ours has it"
                )


def _close(given: Tensor, expected: Tensor) -> bool:
    """Equal up to the rounding of fp16, in which some files are."""
    fits = expected.dim() == 0 or given.shape == expected.shape
    return fits and torch.allclose(given.double(), expected.double(), rtol=1e-2, atol=1e-4)


def _group(values: Any, key: str) -> Mapping[str, Any]:
    """The mapping at a key of what may be none."""
    group = values.get(key) if isinstance(values, Mapping) else None
    return group if isinstance(group, Mapping) else {}


def _read_settings(path: Path) -> Mapping[str, Any]:
    values = read_json(path)
    if not _group(values, "prior"):
        raise WeightsError(f"{path} has no group prior: expected the prior_config.json that lies beside the checkpoint")
    return values
