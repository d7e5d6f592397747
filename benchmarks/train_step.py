"""A training step of ours against dalle2-pytorch's: the decoder at equal forward FLOPs, the prior at equal width and depth.

A step is forward, loss, backward and AdamW. Ours runs as `unclip train` runs it: bf16 autocast, channels_last, fused AdamW.
The peer runs as installed, fp32, and again under bf16 autocast, which it was not written for. All take the same inputs.

Our decoder has the shape that its training recipes have (pixels folded 2x2, layer norms, attention with an MLP at 8 x 8
positions), sized to cost what the peer's costs; the FLOPs of both are counted by torch and must agree within 2 %.

    python benchmarks/train_step.py [--seconds 60] [--quick]
"""

import argparse
from collections.abc import Callable
from types import ModuleType

import torch
from lib import dalle2
from lib.measure import PRODUCT_FLOPS, Contestant, Result, best_of, count_flops, matrix_product, print_results
from torch import Tensor, nn

from unclip.device import autocast
from unclip.diffusion.process import DiffusionConfig, q_sample, training_losses
from unclip.models.clip import Text
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.models.unet import UNetConfig
from unclip.train.optimizer import make_optimizer

EMBED, CONTEXT = 256, 24  # of the decoder: z, the caption's width, its tokens
DECODER = DecoderConfig(
    unet=UNetConfig(
        image_size=64,
        channels=128,
        mult=(1, 2, 3.25),
        depth=(2, 2, 1),
        attention=(16,),
        head_channels=32,
        out_channels=6,
        context_width=EMBED,
        fold=2,
        norm="layer",
        attention_mlp=True,
    ),
    embed=EMBED,
    text_width=EMBED,
    text_embed=EMBED,
)
PRIOR = PriorConfig(embed=512, text_embed=512, text_width=512, context=256, width=512, layers=6, heads=8)
TOLERANCE = 0.02  # of equal FLOPs


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step of ours against dalle2-pytorch's.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of rounds for each network, three rounds at least")
    parser.add_argument("--quick", action="store_true", help="one sample, one round: does it run?")
    args = parser.parse_args()
    peer = dalle2.import_peer()
    torch.manual_seed(0)
    seconds, rounds = (0.0, 1) if args.quick else (args.seconds, 3)
    results = [
        *compare_decoders(peer, 1 if args.quick else 16, seconds, rounds),
        *compare_priors(peer, 1 if args.quick else 64, seconds, rounds),
    ]
    print_results("train_step", results)


def compare_decoders(peer: ModuleType, batch: int, seconds: float, rounds: int) -> list[Result]:
    """Images a second at 64 px, the peer's in fp32 and in bf16; SystemExit when the FLOPs are not equal."""
    images, z = torch.rand(batch, 3, 64, 64), torch.randn(batch, EMBED)
    states, mask = torch.randn(batch, CONTEXT, EMBED), torch.ones(batch, CONTEXT, dtype=torch.bool)
    module = Decoder(DECODER).to(memory_format=torch.channels_last).train()
    theirs = dalle2.decoder(peer, EMBED, CONTEXT)

    our_loss = decoder_loss(module, images * 2 - 1, z, Text(torch.randn(batch, EMBED), states, mask))
    their_loss = lambda: theirs(images, image_embed=z, text_encodings=states)  # noqa: E731
    flops, their_flops = count_flops(our_loss) / batch, count_flops(their_loss) / batch
    print(f"decoder, forward: ours {flops / 1e9:.2f}, peer {their_flops / 1e9:.2f} GFLOP an image")
    if abs(flops / their_flops - 1) > TOLERANCE:
        raise SystemExit(f"the decoders' forward FLOPs differ by more than {TOLERANCE:.0%}: resize DECODER")
    contestants = {"ours": training_step(module, our_loss), **their_steps(theirs, their_loss)}
    return compare("decoder, 64 px, equal forward FLOPs", "images/s", contestants, batch, flops, seconds, rounds)


def compare_priors(peer: ModuleType, batch: int, seconds: float, rounds: int) -> list[Result]:
    """Samples a second of 260 tokens, the peer's in fp32 and in bf16."""
    z, pooled, states = torch.randn(batch, 512), torch.randn(batch, 512), torch.randn(batch, 256, 512)
    module = Prior(PRIOR).train()
    module.set_statistics(torch.zeros(512), torch.ones(512))
    theirs = dalle2.prior(peer)

    our_loss = prior_loss(module, z, Text(pooled, states, torch.ones(batch, 256, dtype=torch.bool)))
    # It scales the given z in place.
    their_loss = lambda: theirs(image_embed=z.clone(), text_embed=pooled, text_encodings=states)  # noqa: E731
    flops, their_flops = count_flops(our_loss) / batch, count_flops(their_loss) / batch
    print(f"prior, forward: ours {flops / 1e9:.2f}, peer {their_flops / 1e9:.2f} GFLOP a sample")
    contestants = {"ours": training_step(module, our_loss), **their_steps(theirs, their_loss)}
    return compare("prior, width 512, 6 layers, 260 tokens", "samples/s", contestants, batch, flops, seconds, rounds)


def decoder_loss(module: Decoder, x0: Tensor, z: Tensor, text: Text) -> Callable[[], Tensor]:
    """The hybrid loss with learned variance, as the peer's; z dropped in 10 %."""
    config = DiffusionConfig(learn_sigma=True)
    schedule = config.noise_schedule()

    def loss() -> Tensor:
        t, noise = torch.randint(len(schedule), (len(x0),)), torch.randn_like(x0)
        x_t = q_sample(schedule, x0, t, noise).contiguous(memory_format=torch.channels_last)
        output = module(x_t, t, z, text, torch.rand(len(x0)) < 0.1)
        return training_losses(config, schedule, output, x0, x_t, noise, t).mean()

    return loss


def prior_loss(module: Prior, z: Tensor, text: Text) -> Callable[[], Tensor]:
    """The squared error of the predicted z."""
    config = DiffusionConfig(prediction="x0")
    schedule = config.noise_schedule()

    def loss() -> Tensor:
        z0 = module.standardise(z)
        t, noise = torch.randint(len(schedule), (len(z),)), torch.randn_like(z)
        z_t = q_sample(schedule, z0, t, noise)
        return training_losses(config, schedule, module(z_t, t, text), z0, z_t, noise, t).mean()

    return loss


def training_step(module: nn.Module, loss: Callable[[], Tensor]) -> Contestant:
    """Our step, as the training loop takes it."""
    optimizer = make_optimizer(module, lr=1e-4, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01)

    def step() -> None:
        with autocast(torch.device("cpu")):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def their_steps(module: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Contestant]:
    return {name: dalle2.training_step(module, loss, bf16=bf16) for name, bf16 in (("fp32", False), ("bf16", True))}


def compare(
    what: str,
    unit: str,
    contestants: dict[str, Contestant],
    batch: int,
    flops: float,
    seconds: float,
    rounds: int,
) -> list[Result]:
    """Ours against each of the peer's precisions; `flops` of our forward pass for one sample, a third of a step's."""
    taken = best_of({**contestants, "limit": matrix_product()}, seconds=seconds, least=rounds)
    limit = PRODUCT_FLOPS / taken["limit"]
    ours = batch / taken["ours"]
    share = 3 * flops * ours / limit
    print(f"{what}: ours {ours:.2f} {unit}, {share:.0%} of the bf16 product's {limit / 1e9:.0f} GFLOP/s")
    results = []
    for precision in ("fp32", "bf16"):
        peer = batch / taken[precision]
        name = "as installed, fp32" if precision == "fp32" else "under bf16 autocast"
        print(f"  dalle2-pytorch {name}: {peer:.2f} {unit}, ours {ours / peer:.2f} x")
        results.append(Result(f"{what}; dalle2-pytorch {name}", ours, peer, unit, ours / peer, share))
    return results


if __name__ == "__main__":
    main()
