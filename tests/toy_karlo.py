"""A Karlo of tiny widths and random weights, made by diffusers and saved in its layout: what the loader must understand."""

import json
import warnings
from pathlib import Path

import torch
from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.pipeline_unclip import UnCLIPPipeline
from diffusers.pipelines.deprecated.unclip.pipeline_unclip_image_variation import UnCLIPImageVariationPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from unclip.diffusion.schedule import cosine

EMBED, CONTEXT = 128, 77  # heads have 64 channels, as in OpenAI's files, where nothing says how many there are
SIDES = (16, 64)  # px of the decoder and the upsampler
_MERGES = [("t", "h"), ("th", "e</w>"), ("r", "e"), ("re", "d</w>"), ("a", "p"), ("c", "a"), ("ca", "t</w>")]


def tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's layout with seven merges: bytes, bytes that end a word, merges, the two marks; padded with "!", id 0."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    entries = letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in _MERGES]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({entry: i for i, entry in enumerate(entries)}), encoding="utf-8")
    merges = ["#version: 0.2", *(" ".join(pair) for pair in _MERGES)]
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token="!", model_max_length=CONTEXT)


def text_to_image(scratch: Path) -> UnCLIPPipeline:
    """Prompt to 64 px over 16 px, all of Karlo's parts."""
    torch.manual_seed(0)
    words = tokenizer(scratch / "vocabulary")
    return UnCLIPPipeline(
        prior=prior(),
        text_encoder=text_encoder(len(words)),
        tokenizer=words,
        super_res_first=super_resolution(),
        super_res_last=super_resolution(),
        prior_scheduler=UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        **decoding(),
    )


def variations(scratch: Path) -> UnCLIPImageVariationPipeline:
    """Picture to 64 px over 16 px: eyes in place of a prior."""
    torch.manual_seed(1)
    words = tokenizer(scratch / "vocabulary")
    return UnCLIPImageVariationPipeline(
        text_encoder=text_encoder(len(words)),
        tokenizer=words,
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        image_encoder=image_encoder(),
        super_res_first=super_resolution(),
        super_res_last=super_resolution(),
        **decoding(),
    )


def prior() -> PriorTransformer:
    network = PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=EMBED, num_embeddings=CONTEXT
    )
    nn.init.normal_(network.clip_mean)
    nn.init.uniform_(network.clip_std, 0.5, 2.0)
    nn.init.normal_(network.positional_embedding, std=0.3)
    return network.eval()


def decoding() -> dict[str, object]:
    """The decoder, its projections and the schedulers that both pipelines have."""
    unet = UNet2DConditionModel(
        sample_size=SIDES[0],
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=48,
        class_embed_type="identity",
        attention_head_dim=16,
        resnet_time_scale_shift="scale_shift",
    )
    projection = UnCLIPTextProjModel(
        time_embed_dim=128, cross_attention_dim=48, clip_extra_context_tokens=4, clip_embeddings_dim=EMBED
    )
    nn.init.normal_(projection.learned_classifier_free_guidance_embeddings)
    return {
        "decoder": unet.eval(),
        "text_proj": projection.eval(),
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range", prediction_type="epsilon"),
        "super_res_scheduler": UnCLIPScheduler(prediction_type="epsilon"),
    }


def text_encoder(vocab: int) -> CLIPTextModelWithProjection:
    cfg = CLIPTextConfig(
        vocab_size=vocab,
        hidden_size=EMBED,
        intermediate_size=4 * EMBED,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=EMBED,
        bos_token_id=vocab - 2,
        eos_token_id=vocab - 1,
        max_position_embeddings=CONTEXT,
    )
    return louder(CLIPTextModelWithProjection(cfg))


def image_encoder() -> CLIPVisionModelWithProjection:
    cfg = CLIPVisionConfig(
        hidden_size=EMBED,
        intermediate_size=4 * EMBED,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=EMBED,
    )
    return louder(CLIPVisionModelWithProjection(cfg))


def super_resolution() -> UNet2DModel:
    return UNet2DModel(
        sample_size=SIDES[1],
        in_channels=6,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        add_attention=False,
    ).eval()


def louder(module: nn.Module) -> nn.Module:
    """Fresh CLIPs hardly differ between inputs: more weight makes a mistake show."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return module.eval()


def save(pipeline, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.save_pretrained(folder)
    return folder


class Recorded:
    """Noise that both sides draw, in the same order: ours through an Rng, theirs in place of `randn_tensor`."""

    def __init__(self, batch: int, seed: int):
        self.batch, self.seed, self.device = batch, seed, torch.device("cpu")
        self.restart()

    def restart(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def fork(self, stream: int) -> "Recorded":
        return self

    def normal(self, shape) -> torch.Tensor:
        return torch.randn((self.batch, *shape), generator=self.generator)

    def randn_tensor(self, shape, **_) -> torch.Tensor:
        return self.normal(shape[1:])


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * b.abs().max()


def in_double(*schedulers) -> None:
    """Their tables as fp64: in fp32, 1 - alpha_bar has three digits left at the clean end, and that is all we differ by."""
    table = cosine()
    for scheduler in schedulers:
        scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = table.betas, 1 - table.betas, table.alpha_bar
