"""Published CLIPs: OpenAI's files, open_clip's and Hugging Face's folders answer as transformers does."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_karlo
from foreign_files import saved, scripted
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from toy_karlo import EMBED, close
from transformers import CLIPConfig as TheirConfig
from transformers import CLIPImageProcessor, CLIPModel

import unclip
from unclip.errors import RequestError, WeightsError
from unclip.models.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from unclip.weights import clip as clips
from unclip.weights import rename
from unclip.weights.opening import open_file

PROMPTS = ["the red cat", "a map of capri, by the sea", ""]
SIDE = 32
SEEN = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def published(folder: Path, *, act: str = "quick_gelu", end: int | None = None, seen: dict = SEEN) -> CLIPModel:
    """A CLIP of random weights, saved as Hugging Face's are; `end`: another eos_token_id than the tokenizer's."""
    torch.manual_seed(3)
    words = toy_karlo.tokenizer(folder)
    tower = {"hidden_size": EMBED, "intermediate_size": 4 * EMBED, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"vocab_size": len(words), "bos_token_id": len(words) - 2, "eos_token_id": end or len(words) - 1}
    vision = {"image_size": SIDE, "patch_size": 8, "intermediate_size": 3 * EMBED}
    cfg = TheirConfig(
        text_config=tower | text | {"hidden_act": act, "max_position_embeddings": 77},
        vision_config=tower | vision | {"hidden_act": act},
        projection_dim=24,
    )
    model = toy_karlo.louder(CLIPModel(cfg))
    with torch.no_grad():
        model.logit_scale.fill_(4.0)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, **seen).save_pretrained(
        folder
    )
    return model


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


@torch.no_grad()
def assert_equal(ours: unclip.UnCLIP, theirs: CLIPModel, seen: dict = SEEN) -> None:
    """Captions, pictures and their likeness."""
    tokens = ours.tokenizer(PROMPTS)
    text = ours.encode_text(PROMPTS)
    answer = theirs.text_model(tokens.ids, attention_mask=tokens.mask.long())
    close(text.states[tokens.mask], answer.last_hidden_state[tokens.mask])
    close(text.pooled, theirs.text_projection(answer.pooler_output))
    pixels = torch.stack([torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255 for picture in pictures()])
    mean, std = (torch.tensor(seen[f"image_{name}"]).view(3, 1, 1) for name in ("mean", "std"))
    features = theirs.vision_model((pixels - mean) / std).pooler_output
    close(ours.embed(pictures()), theirs.visual_projection(features))
    likeness = theirs(tokens.ids, (pixels - mean) / std, attention_mask=tokens.mask.long()).logits_per_image
    close(ours.clip.module.logits(ours.embed(pictures()), text.pooled), likeness)


def load(place: Path) -> unclip.UnCLIP:
    return unclip.load(place, device="cpu", precision="fp32")


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_hugging_face_folder(tmp_path, act):
    theirs = published(tmp_path / "clip", act=act)
    ours = load(tmp_path / "clip")
    assert ours.clip.cfg.act == act
    assert_equal(ours, theirs)
    with torch.no_grad():  # a wrong activation must not pass for the right one
        wrong = CLIP(ours.clip.cfg.model_copy(update={"act": "gelu" if act == "quick_gelu" else "quick_gelu"}))
        wrong.load_state_dict(ours.clip.module.state_dict())
        tokens = ours.tokenizer(PROMPTS)
        right = ours.encode_text(PROMPTS).pooled
    assert (wrong.encode_text(tokens.ids, tokens.mask).pooled - right).abs().max() > 1e-2 * right.abs().max()


def test_towers_of_two_activations_are_refused(tmp_path):
    published(tmp_path / "clip")
    config = tmp_path / "clip" / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values["vision_config"]["hidden_act"] = "gelu"
    config.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"hidden_act is .* for both towers the same"):
        load(tmp_path / "clip")


def test_configs_written_before_2023_end_captions_with_2(tmp_path):
    """Pooling took the largest id then, which is the end's."""
    theirs = published(tmp_path / "clip", end=2)
    ours = load(tmp_path / "clip")
    assert ours.clip.cfg.end_token == theirs.config.text_config.vocab_size - 1
    assert_equal(ours, theirs)


def test_a_clip_paints_nothing(tmp_path):
    published(tmp_path / "clip")
    with pytest.raises(RequestError, match=r"^clip has no decoder: it embeds prompts, and paints nothing$"):
        load(tmp_path / "clip").generate("the red cat")


def openai_state(model: unclip.UnCLIP) -> dict[str, Tensor]:
    return rename.to_theirs(clips.openai(model.clip.cfg), model.clip.module.state_dict())


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_an_open_clip_folder(tmp_path, quick, weights):
    theirs = published(tmp_path / "source", act="quick_gelu" if quick else "gelu", seen=HALVES)
    state = openai_state(load(tmp_path / "source"))
    folder = tmp_path / "open"
    folder.mkdir()
    if weights.endswith(".bin"):
        saved(folder / weights, state)
    else:
        save_file(state, folder / weights)
    model = {"embed_dim": 24, "vision_cfg": {}, "text_cfg": {}} | ({"quick_gelu": True} if quick else {})
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    toy_karlo.tokenizer(tmp_path / "words").save_pretrained(folder)
    ours = load(folder)
    assert ours.clip.cfg == load(tmp_path / "source").clip.cfg
    assert_equal(ours, theirs, HALVES)


def test_of_a_repository_in_both_layouts_the_one_with_weights_is_read(tmp_path):
    theirs = published(tmp_path / "clip")
    (tmp_path / "clip" / "open_clip_config.json").write_text('{"model_cfg": {}}', encoding="utf-8")
    assert_equal(load(tmp_path / "clip"), theirs)
    (tmp_path / "clip" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no weights: expected open_clip_model\.safetensors or"):
        load(tmp_path / "clip")


@pytest.mark.parametrize("layout", ["script", "state dict"])
def test_openais_file(tmp_path, layout):
    seen = {"image_mean": list(clips.MEAN), "image_std": list(clips.STD)}
    theirs = published(tmp_path / "source", seen=seen).half().float()
    source = load(tmp_path / "source")
    folder = tmp_path / "openai"
    folder.mkdir()
    if layout == "script":
        scripted(folder / "ViT-B-32.pt", openai_state(source))
    else:
        state = {name: tensor.half() for name, tensor in openai_state(source).items()}
        saved(folder / "ViT-B-32.pt", state | {"context_length": torch.tensor(77)})
    merges = (tmp_path / "source" / "merges.txt").read_bytes()
    (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(merges))
    if layout == "script":
        ours = load(folder)
    else:
        with pytest.raises(WeightsError, match=r"ViT-B-32\.pt does not say its activation"):
            load(folder)
        ours = unclip.UnCLIP(
            open_file(folder / "ViT-B-32.pt", None, "quick_gelu"), device=torch.device("cpu"), precision="fp32"
        )
    assert ours.clip.cfg == source.clip.cfg
    assert_equal(ours, theirs, seen)


SIZES = {
    "ViT-B-32": ((224, 32, 768, 12, 12, 4.0), (512, 12, 8), 512),
    "ViT-B-16": ((224, 16, 768, 12, 12, 4.0), (512, 12, 8), 512),
    "ViT-L-14": ((224, 14, 1024, 24, 16, 4.0), (768, 12, 12), 768),
    "ViT-H-14": ((224, 14, 1280, 32, 16, 4.0), (1024, 24, 16), 1024),
    "ViT-bigG-14": ((224, 14, 1664, 48, 16, 8192 / 1664), (1280, 32, 20), 1280),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_tensors_of_the_published_sizes_tell_their_config(name):
    vision, text, embed = SIZES[name]
    cfg = CLIPConfig(
        embed=embed,
        vision=VisionConfig(**dict(zip(VisionConfig.model_fields, vision, strict=False))),
        text=TextConfig(context=77, vocab=49408, width=text[0], layers=text[1], heads=text[2]),
        act="quick_gelu",
        end_token=49407,
        mean=clips.MEAN,
        std=clips.STD,
    )
    with torch.device("meta"):
        state = rename.to_theirs(clips.openai(cfg), CLIP(cfg).state_dict())
    hidden = state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    assert hidden == {"ViT-H-14": 5120, "ViT-bigG-14": 8192}.get(name, 4 * vision[2])
    assert clips.openai_config(state, where=name) == cfg


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"visual.layer1.0.conv1.weight": torch.ones(1)}, "it is a CLIP with a ResNet, which we do not build"),
        ({"unet.conv_in.weight": torch.ones(1)}, "it is no CLIP"),
    ],
)
def test_a_file_that_is_no_such_clip_is_refused_by_name(tmp_path, state, words):
    path = saved(tmp_path / "RN50.pt", state)
    with pytest.raises(WeightsError, match=words) as error:
        load(tmp_path)
    assert str(error.value) == f"{path}: the tensor visual.conv1.weight is missing: {words}"


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("text_projection", torch.ones(3), "its tensors have not the dimensions of a CLIP's"),
        ("token_embedding.weight", torch.ones(3), "its tensors have not the dimensions of a CLIP's"),
        ("visual.conv1.weight", torch.ones(100, 3, 8, 8), r"visual.class_embedding is float32 \(128,\), .* \(100,\)"),
        ("visual.conv1.weight", torch.ones(129, 3, 8, 8), "heads width 129"),
        (
            "ln_final.weight",
            torch.ones(3),
            r"ViT\.pt: ln_final.weight is float32 \(3,\), the network expects float32 \(128,\)",
        ),
    ],
)
def test_tensors_of_another_shape_are_one_line(tmp_path, name, tensor, words):
    published(tmp_path / "source")
    saved(tmp_path / "ViT.pt", openai_state(load(tmp_path / "source")) | {name: tensor})
    with pytest.raises(WeightsError, match=words) as error:
        open_file(tmp_path / "ViT.pt", None, "gelu").networks["clip"].read()
    assert "\n" not in str(error.value)
