"""CLIP against transformers' on random weights, its losses against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
import transformers

from unclip.errors import ConfigError
from unclip.models.clip import CLIP, OPENAI_MEAN, OPENAI_STD, SIZES, CLIPConfig

END = 59
LAYER = {
    "norm_attention": "layer_norm1",
    "attention.out": "self_attn.out_proj",
    "norm_mlp": "layer_norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
# ours: theirs
TOWERS = {
    "vision.cls": "vision_model.embeddings.class_embedding",
    "vision.patches.weight": "vision_model.embeddings.patch_embedding.weight",
    "vision.position": "vision_model.embeddings.position_embedding.weight",
    "vision.norm_in.weight": "vision_model.pre_layrnorm.weight",
    "vision.norm_in.bias": "vision_model.pre_layrnorm.bias",
    "vision.norm_out.weight": "vision_model.post_layernorm.weight",
    "vision.norm_out.bias": "vision_model.post_layernorm.bias",
    "vision.project.weight": "visual_projection.weight",
    "text.token.weight": "text_model.embeddings.token_embedding.weight",
    "text.position": "text_model.embeddings.position_embedding.weight",
    "text.norm_out.weight": "text_model.final_layer_norm.weight",
    "text.norm_out.bias": "text_model.final_layer_norm.bias",
    "text.project.weight": "text_projection.weight",
    "logit_scale": "logit_scale",
}


def ours(act: str = "gelu", **changes) -> CLIP:
    values = {
        "embed": 24,
        "vision": {"image_size": 32, "patch": 8, "width": 48, "layers": 3, "heads": 3},
        "text": {"context": 12, "vocab": 60, "width": 32, "layers": 2, "heads": 4},
        "act": act,
        "end_token": END,
        "mean": OPENAI_MEAN,
        "std": OPENAI_STD,
    }
    torch.manual_seed(0)
    return CLIP(CLIPConfig.parse(values | changes))


def theirs(model: CLIP) -> transformers.CLIPModel:
    """transformers' CLIP with the same random weights."""
    cfg = model.cfg
    shared = {"hidden_act": cfg.act, "projection_dim": cfg.embed}
    towers = {}
    for tower, sides in (("vision", cfg.vision), ("text", cfg.text)):
        towers[f"{tower}_config"] = shared | {
            "hidden_size": sides.width,
            "intermediate_size": 4 * sides.width,
            "num_hidden_layers": sides.layers,
            "num_attention_heads": sides.heads,
        }
    towers["vision_config"] |= {"image_size": cfg.vision.image_size, "patch_size": cfg.vision.patch}
    towers["text_config"] |= {
        "vocab_size": cfg.text.vocab,
        "max_position_embeddings": cfg.text.context,
        "eos_token_id": cfg.end_token,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    peer = transformers.CLIPModel(transformers.CLIPConfig(projection_dim=cfg.embed, **towers)).eval()
    peer.load_state_dict(renamed(model), strict=True)
    return peer


def renamed(model: CLIP) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in model.state_dict().items():
        if name in TOWERS:
            state[TOWERS[name]] = tensor
            continue
        tower, _, _, layer, rest = name.split(".", 4)
        place, kind = rest.rsplit(".", 1)
        prefix = f"{tower}_model.encoder.layers.{layer}"
        if place == "attention.qkv":
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{prefix}.self_attn.{letter}_proj.{kind}"] = part
        else:
            state[f"{prefix}.{LAYER[place]}.{kind}"] = tensor
    return state


def captions() -> tuple[torch.Tensor, torch.Tensor]:
    """Random captions of several lengths, the last as long as the context."""
    torch.manual_seed(1)
    ids, mask = torch.zeros(4, 12, dtype=torch.int64), torch.zeros(4, 12, dtype=torch.bool)
    for row, length in enumerate((2, 5, 9, 12)):
        ids[row, :length] = torch.randint(3, END, (length,))
        ids[row, length - 1] = END
        mask[row, :length] = True
    return ids, mask


@pytest.mark.parametrize("act", ["gelu", "quick_gelu"])
def test_both_towers_are_transformers(act):
    model = ours(act).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too
            parameter += 0.1 * torch.randn_like(parameter)
    peer = theirs(model)
    ids, mask = captions()
    images = 2 * torch.rand(4, 3, 32, 32) - 1
    normalised = ((images + 1) / 2 - torch.tensor(OPENAI_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_STD).view(3, 1, 1)
    with torch.no_grad():
        out = peer(input_ids=ids, pixel_values=normalised, attention_mask=mask.long())
        z, text = model.encode_image(images), model.encode_text(ids, mask)
        logits = model.logits(z, text.pooled)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(F.normalize(z, dim=-1), out.image_embeds, **close)
    torch.testing.assert_close(F.normalize(text.pooled, dim=-1), out.text_embeds, **close)
    torch.testing.assert_close(text.states[mask], out.text_model_output.last_hidden_state[mask], **close)
    torch.testing.assert_close(logits, out.logits_per_image, **close)


def test_the_softmax_loss_is_transformers():
    model = ours().eval()
    ids, mask = captions()
    images = 2 * torch.rand(4, 3, 32, 32) - 1
    normalised = ((images + 1) / 2 - torch.tensor(OPENAI_MEAN).view(3, 1, 1)) / torch.tensor(OPENAI_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = theirs(model)(input_ids=ids, pixel_values=normalised, attention_mask=mask.long(), return_loss=True).loss
        loss = model.loss(model.encode_image(images), model.encode_text(ids, mask).pooled)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_the_default_normalisation_is_the_identity():
    model = ours(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).eval()
    images = 2 * torch.rand(2, 3, 32, 32) - 1
    seen = []
    model.vision.patches.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model.encode_image(images)
    torch.testing.assert_close(seen[0], images, atol=1e-7, rtol=0)


def test_padding_changes_nothing_and_the_first_end_is_pooled():
    model = ours().eval()
    ids, mask = captions()
    changed = torch.where(mask, ids, torch.randint(3, 60, ids.shape))  # also further ends
    with torch.no_grad():
        before, after = model.encode_text(ids, mask), model.encode_text(changed, mask)
        short = model.encode_text(ids[:2, :5], mask[:2, :5])
    assert not torch.equal(ids, changed)
    torch.testing.assert_close(before.pooled, after.pooled)
    torch.testing.assert_close(before.states[mask], after.states[mask])
    torch.testing.assert_close(before.pooled[:2], short.pooled, atol=1e-5, rtol=1e-5)


def embeddings(count=5):
    torch.manual_seed(2)
    return torch.randn(count, 24), torch.randn(count, 24)


@pytest.mark.parametrize("shared", [False, True])
def test_the_sigmoid_loss_is_a_sum_over_pairs(shared):
    model = ours(loss="sigmoid")
    z, pooled = embeddings()
    same = torch.eye(5, dtype=torch.bool)
    if shared:
        same[1, 3] = same[3, 1] = True
    total = 0.0
    for i in range(5):
        for j in range(5):
            logit = 10 * torch.cosine_similarity(z[i], pooled[j], dim=0).item() - 10
            total += math.log1p(math.exp(-logit if same[i, j] else logit))
    assert model.loss(z, pooled, same if shared else None).item() == pytest.approx(total / 5, rel=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_the_softmax_loss_shares_its_target_among_equal_captions(shared):
    model = ours()
    z, pooled = embeddings()
    same = torch.eye(5, dtype=torch.bool)
    if shared:
        same[1, 3] = same[3, 1] = True
    logits = (F.normalize(z, dim=1) @ F.normalize(pooled, dim=1).T / 0.07).detach()
    rows = -torch.stack([logits[i].log_softmax(0)[same[i]].mean() for i in range(5)]).mean()
    columns = -torch.stack([logits[:, j].log_softmax(0)[same[:, j]].mean() for j in range(5)]).mean()
    assert model.loss(z, pooled, same if shared else None).item() == pytest.approx((rows + columns).item() / 2, rel=1e-5)


def test_a_pair_that_the_mask_forgets_still_counts():
    model = ours()
    z, pooled = embeddings()
    none = torch.zeros(5, 5, dtype=torch.bool)
    assert torch.equal(model.loss(z, pooled, none), model.loss(z, pooled))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_wrong_captions_are_one_more_choice_of_each_picture(loss):
    model = ours(loss=loss)
    z, pooled = torch.randn(3, 16), torch.randn(5, 16)
    logits = model.logits(z, pooled).detach()
    if loss == "softmax":
        expected = (F.cross_entropy(logits, torch.arange(3)) + F.cross_entropy(logits[:, :3].T, torch.arange(3))) / 2
    else:
        expected = F.softplus(logits * (1 - 2 * torch.eye(3, 5))).sum() / 3
    torch.testing.assert_close(model.loss(z, pooled), expected)


def test_the_losses_are_fp32_under_autocast():
    model = ours()
    z, pooled = embeddings()
    exact = model.loss(z, pooled)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.loss(z, pooled), exact)


def test_the_scale_starts_at_the_papers_and_ends_at_100():
    model = ours()
    z = torch.eye(24)[:3]
    assert model.logits(z, z).max().item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert model.logits(z, z).max().item() == pytest.approx(100, rel=1e-5)


def test_patches_are_dropped_in_training_only():
    model = ours(vision={"image_size": 32, "patch": 8, "width": 48, "layers": 1, "heads": 3, "patch_dropout": 0.75})
    images = 2 * torch.rand(2, 3, 32, 32) - 1
    seen = []
    model.vision.norm_in.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    model.train().encode_image(images)
    model.eval().encode_image(images)
    kept, whole = seen
    assert (kept.shape[1], whole.shape[1]) == (1 + 4, 1 + 16)
    assert torch.equal(kept[:, 0], whole[:, 0])  # the class token stays
    chosen = (kept[:, 1:, None] == whole[:, None, 1:]).all(-1)  # (B, kept, whole): which patch is it?
    assert (chosen.sum(2) == 1).all()  # with its position, so no two patches are alike
    assert (chosen.sum(1) <= 1).all()
    assert not torch.equal(chosen[0].any(0), chosen[1].any(0))
    assert torch.equal(model.encode_image(images), model.encode_image(images))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vision": {"image_size": 30, "patch": 8, "width": 48, "layers": 1, "heads": 3}}, "8 must divide image_size 30"),
        (
            {"vision": {"image_size": 32, "patch": 0, "width": 48, "layers": 1, "heads": 3}},
            "vision.patch = 0: .*greater than 0",
        ),
        ({"text": {"context": 12, "vocab": 60, "width": 32, "layers": 2, "heads": 5}}, "5 heads do not divide width 32"),
        ({"loss": "hinge"}, "loss = 'hinge'"),
        ({"colour": 1}, "unknown key colour"),
    ],
    ids=["patch", "zero", "heads", "loss", "key"],
)
def test_impossible_shapes_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        ours(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_can_be_built(size):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in CLIP(SIZES[size]).parameters()) > 0
