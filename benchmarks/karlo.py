"""A step of each of Karlo's networks at full size, ours and diffusers', on the same random weights; then a whole picture.

Ours runs as `unclip generate` runs it: bf16 where the machine multiplies it, channels_last, freed memory kept, and the prior
reading its caption once for all steps. The peer runs as installed, fp32, and converted to bf16; memory is as glibc has it
then. Everybody gets the same inputs: batch 2 for prior and decoder, which is one picture with guidance, batch 1 for
super-resolution. Before timing, the outputs are compared.

A picture is 25 steps of the prior, 25 of the decoder and 7 of super-resolution, each at its measured seconds.

    python benchmarks/karlo.py [--rounds 2] [--only prior]
"""

import argparse
import gc
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import diffusers
import torch
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from lib.measure import PRODUCT_FLOPS, Result, best_of, count_flops, matrix_product, print_results
from torch import Tensor, nn

from unclip.device import autocast, has_bf16, keep_freed_memory, weight_types
from unclip.models.clip import Text
from unclip.models.decoder import Decoder
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler
from unclip.weights import karlo, rename, store

CPU = torch.device("cpu")
STEPS = {"prior": 25, "decoder": 25, "super-resolution": 7}
BF16_ERROR = 0.05  # of the output's scale: what rounding to 8 bits of mantissa costs through a thousand layers


@dataclass
class Case:
    """One network, ours and theirs: `ours` and `theirs[precision]` compute the same output on the same inputs."""

    name: str
    ours: Callable[[], Tensor]
    theirs: Callable[[torch.dtype], Callable[[], Tensor]]
    once: Callable[[], object]
    """What ours does once for all steps."""
    nominal: int
    """FLOPs of a step that does everything anew."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a step of Karlo's networks, ours and diffusers'.")
    parser.add_argument("--rounds", type=int, default=2, help="of everybody's step; the best one counts")
    parser.add_argument("--only", choices=list(STEPS), help="one network, and no whole picture")
    args = parser.parse_args()
    torch.manual_seed(0)
    print(f"diffusers {diffusers.__version__}; bf16 in hardware: {has_bf16(CPU)}")
    makers = {"prior": prior, "decoder": decoder, "super-resolution": super_resolution}
    results, pictures = [], []
    for name, make in makers.items():
        if args.only in (None, name):
            found, picture = measure(make(), args.rounds)
            results += found
            pictures.append(picture)
            gc.collect()
    if args.only is None:
        results += whole(pictures)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of this process, with both sides' weights: {peak:.1f} GB")
    print_results("karlo", results)


@torch.inference_mode()
def measure(case: Case, rounds: int) -> tuple[list[Result], dict[str, float]]:
    """The rows of one network, and each contestant's seconds for its steps of a picture."""
    executed = count_flops(case.ours)
    peers = {"fp32": case.theirs(torch.float32), "bf16": case.theirs(torch.bfloat16)}
    reference, mine, half = peers["fp32"](), case.ours(), peers["bf16"]()
    scale = reference.abs().max()
    errors = {"ours": float((mine - reference).abs().max() / scale), "theirs": float((half - reference).abs().max() / scale)}
    print(
        f"{case.name}: {case.nominal / 1e9:.0f} GFLOP a step ({executed / 1e9:.0f} of them left to ours); "
        f"off diffusers' fp32 by {errors['ours']:.1e} of its scale, diffusers' own bf16 by {errors['theirs']:.1e}"
    )
    assert errors["ours"] < BF16_ERROR, "that is more than rounding"
    contestants = {"ours": case.ours, "once": case.once, **peers, "limit": matrix_product()}
    contestants = {name: with_memory(run, name in ("ours", "once")) for name, run in contestants.items()}
    taken = best_of(contestants, seconds=0, least=rounds + 1)
    limit, steps = PRODUCT_FLOPS / taken["limit"], STEPS[case.name]
    rows = []
    for precision in peers:
        print(
            f"  {precision}: theirs {taken[precision]:.3f} s a step ({case.nominal / taken[precision] / limit:.0%} of the "
            f"bf16 product), ours {taken['ours']:.3f} s and {taken['once']:.3f} s once"
        )
        mean = taken["ours"] + taken["once"] / steps
        share = executed / taken["ours"] / limit
        rows.append(
            Result(
                f"{case.name}, a step, diffusers {precision}", mean, taken[precision], "s", taken[precision] / mean, share
            )
        )
    return rows, {
        "ours": steps * taken["ours"] + taken["once"],
        **{precision: steps * taken[precision] for precision in peers},
    }


def with_memory(run: Callable[[], object], kept: bool) -> Callable[[], object]:
    """`run` with freed memory kept, or given back as glibc does it after the first large block."""

    def running() -> object:
        keep_freed_memory(1 << 30 if kept else 32 << 20)
        return run()

    return running


def whole(pictures: list[dict[str, float]]) -> list[Result]:
    """A picture's seconds: all steps of all networks."""
    seconds = {who: sum(picture[who] for picture in pictures) for who in pictures[0]}
    ours = seconds.pop("ours")
    return [Result(f"a picture, diffusers {peer}", ours, taken, "s", taken / ours, None) for peer, taken in seconds.items()]


def prior() -> Case:
    cfg = karlo.PRIOR
    theirs = randomised(diffusers.PriorTransformer())
    module = ours(Prior, cfg, karlo.prior(cfg), theirs.state_dict())
    z, t = torch.randn(2, cfg.embed), torch.tensor([500, 500])
    text = captions(cfg.context, cfg.text_width)
    with torch.inference_mode(), autocast(CPU):
        memory = module.remember(text)

    def step() -> Tensor:
        with autocast(CPU):
            return module(z, t, text, memory).float()

    def once() -> object:
        with autocast(CPU):
            return module.remember(text)

    def peer(dtype: torch.dtype) -> Callable[[], Tensor]:
        network = (
            theirs if dtype == torch.float32 else randomised(diffusers.PriorTransformer(), theirs.state_dict()).to(dtype)
        )
        given = (x.to(dtype) for x in (z, text.pooled, text.states))
        z_, pooled, states = given
        return lambda: network(z_, 500, pooled, states, text.mask).predicted_image_embedding.float()

    def anew() -> None:
        with torch.inference_mode(), autocast(CPU):
            module(z, t, text)

    return Case("prior", step, peer, once, count_flops(anew))


def decoder() -> Case:
    cfg = karlo.DECODER

    def make() -> nn.ModuleDict:
        unet = diffusers.UNet2DConditionModel(
            sample_size=64,
            out_channels=6,
            layers_per_block=3,
            block_out_channels=(320, 640, 960, 1280),
            down_block_types=("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
            up_block_types=(*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            in_channels=3,
            cross_attention_dim=1536,
            class_embed_type="identity",
            attention_head_dim=64,
            resnet_time_scale_shift="scale_shift",
        )
        projection = UnCLIPTextProjModel(
            time_embed_dim=1280, cross_attention_dim=1536, clip_extra_context_tokens=4, clip_embeddings_dim=768
        )
        return nn.ModuleDict({"decoder": unet, "text_proj": projection})

    theirs = randomised(make())
    module = ours(Decoder, cfg, karlo.decoder(cfg), theirs.state_dict())
    x, z, t = torch.randn(2, 3, 64, 64), torch.randn(2, cfg.embed), torch.tensor([500, 500])
    text = captions(77, cfg.text_width)

    def step() -> Tensor:
        with autocast(CPU):
            return module(x, t, z, text).float()

    def peer(dtype: torch.dtype) -> Callable[[], Tensor]:
        network = theirs if dtype == torch.float32 else randomised(make(), theirs.state_dict()).to(dtype)
        given = {"image_embeddings": z, "prompt_embeds": text.pooled, "text_encoder_hidden_states": text.states}
        with torch.inference_mode():
            states, emb = network["text_proj"](
                **{name: value.to(dtype) for name, value in given.items()}, do_classifier_free_guidance=False
            )
        mask = torch.nn.functional.pad(text.mask, (4, 0), value=True)
        x_ = x.to(dtype)
        return lambda: network["decoder"](
            x_, 500, encoder_hidden_states=states, class_labels=emb, attention_mask=mask
        ).sample.float()

    return Case("decoder", step, peer, lambda: None, flops(step))


def super_resolution() -> Case:
    cfg = karlo.UPSAMPLER

    def make() -> nn.Module:
        return diffusers.UNet2DModel(
            sample_size=256,
            in_channels=6,
            layers_per_block=3,
            block_out_channels=(320, 640, 960, 1280),
            down_block_types=("ResnetDownsampleBlock2D",) * 4,
            up_block_types=("ResnetUpsampleBlock2D",) * 4,
            add_attention=False,
        )

    theirs = randomised(make())
    module = ours(Upsampler, cfg, karlo.upsampler(cfg), theirs.state_dict())
    x, low, t = torch.randn(1, 3, 256, 256), torch.randn(1, 3, 256, 256).clamp(-1, 1), torch.tensor([500])

    def step() -> Tensor:
        with autocast(CPU):
            return module(x, t, low).float()

    def peer(dtype: torch.dtype) -> Callable[[], Tensor]:
        network = theirs if dtype == torch.float32 else randomised(make(), theirs.state_dict()).to(dtype)
        both = torch.cat([x, low], dim=1).to(dtype)
        return lambda: network(both, 500).sample.float()

    return Case("super-resolution", step, peer, lambda: None, flops(step))


def ours(kind: Callable, cfg: object, table: rename.Table, state: Mapping[str, Tensor]):
    """Our network with their weights, built as `shelf` builds it."""
    with torch.device("meta"):
        module = kind(cfg)
    converted = rename.to_ours(table, module.state_dict(), state, where="diffusers")
    module = store.fill(module, converted, where="diffusers", types=weight_types(module, CPU))
    return module.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def randomised(module: nn.Module, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """The module in eval mode, with weights of its own or those given; a prior's statistics set."""
    if state is not None:
        module.load_state_dict(state)
    elif isinstance(module, diffusers.PriorTransformer):
        nn.init.ones_(module.clip_std)
        nn.init.normal_(module.positional_embedding, std=0.01)
    return module.eval().requires_grad_(False)


def captions(length: int, width: int) -> Text:
    """One caption of ten tokens and the empty one."""
    mask = torch.arange(length)[None] < torch.tensor([[10], [2]])
    return Text(torch.randn(2, width), torch.randn(2, length, width), mask)


def flops(step: Callable[[], Tensor]) -> int:
    with torch.inference_mode():
        return count_flops(step)


if __name__ == "__main__":
    main()
