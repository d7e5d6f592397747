"""The decoder: what of z and of the caption reaches the U-Net, and what must not."""

import pytest
import torch
from conftest import scrambled

from unclip.errors import ConfigError
from unclip.models.clip import Text, TextConfig
from unclip.models.decoder import SIZES, Decoder, DecoderConfig
from unclip.models.known import Known

MICRO = SIZES["micro"]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    torch.manual_seed(0)
    model = scrambled(Decoder(MICRO), 0, std=0.1)
    model.null_z.copy_(torch.randn(32))
    return model


def inputs(length: int = 6):
    torch.manual_seed(1)
    text = Text(torch.randn(2, 32), torch.randn(2, length, 32), torch.ones(2, length, dtype=torch.bool))
    text.mask[0, 3:] = False
    return torch.randn(2, 3, 32, 32), torch.tensor([10, 900]), torch.randn(2, 32), text


def test_a_dropped_z_is_the_learned_null_and_its_own_value_is_gone(decoder):
    x, t, z, text = inputs()
    drop = torch.tensor([True, False])
    out = decoder(x, t, z, text, drop)
    wild = torch.stack([torch.full_like(z[0], 1e6), z[1]])
    assert torch.equal(decoder(x, t, wild, text, drop), out)
    nulled = torch.stack([decoder.null_z, z[1]])
    assert torch.equal(decoder(x, t, nulled, text), out)
    kept = decoder(x, t, z, text)
    assert (kept - out)[0].abs().max() > 1e-3
    torch.testing.assert_close(kept[1], out[1], atol=1e-6, rtol=1e-5)


def test_z_is_four_tokens_before_the_captions_and_never_masked(decoder):
    x, t, z, text = inputs()
    seen = []
    handle = decoder.unet.register_forward_pre_hook(lambda module, given: seen.append(given))
    decoder(x, t, z, text)
    decoder(x, t, -z, text)
    handle.remove()
    (_, emb, context, mask), (_, other_emb, other_context, _) = seen
    assert context.shape == (2, 4 + 6, MICRO.unet.context_width)
    assert mask.tolist() == [[True] * 4 + [True] * 3 + [False] * 3, [True] * 10]
    assert torch.equal(context[:, 4:], other_context[:, 4:])
    assert not torch.isclose(context[:, :4], other_context[:, :4]).any(dim=2).all()
    assert not torch.equal(emb, other_emb)  # z is added to the timestep's embedding too


@pytest.mark.parametrize("part", ["pooled", "states", "z", "t", "x"])
def test_every_input_is_heard(decoder, part):
    x, t, z, text = inputs()
    before = decoder(x, t, z, text)
    given = {"x": x, "t": t, "z": z, "pooled": text.pooled, "states": text.states}
    given[part] = given[part].flip(0)
    changed = Text(given["pooled"], given["states"], text.mask)
    after = decoder(given["x"], given["t"], given["z"], changed)
    assert (after - before).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_a_layout_is_drawn_from_z_and_caption_and_lies_beside_the_noise():
    torch.manual_seed(0)
    unet = MICRO.unet.model_dump() | {"in_channels": 6}
    values = MICRO.model_dump() | {"unet": unet, "layout": {"side": 4, "width": 24, "depth": 2}}
    decoder = scrambled(Decoder(DecoderConfig.parse(values)), 0, std=0.1)
    x, t, z, text = inputs()
    given = []
    handle = decoder.unet.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    wide = torch.randn(2, 3, 48, 64)
    decoder(x, t, z, text)
    decoder(x, t, -z, text)
    decoder(x, t, z, text._replace(pooled=-text.pooled))
    decoder(x, t, z, text, torch.tensor([True, False]))
    decoder(x, t, torch.stack([decoder.null_z, z[1]]), text)
    assert decoder(wide, t, z, text).shape == wide.shape
    decoder(x, t, z, text, layout=decoder.layout(-z, text.pooled)[:1])
    handle.remove()
    layouts = [inputs[:, 3:] for inputs in given]
    assert torch.equal(given[0][:, :3], x)
    small = decoder.layout(z, text.pooled)
    assert small.shape == (2, 3, 4, 4)
    torch.testing.assert_close(layouts[0].mean((2, 3)), small.mean((2, 3)), atol=0.1, rtol=0)
    for other in layouts[1:3]:
        assert (other - layouts[0]).abs().amax(dim=(1, 2, 3)).min() > 1e-4
    torch.testing.assert_close(layouts[3], layouts[4])
    assert given[5].shape == (2, 6, 48, 64)
    torch.testing.assert_close(layouts[6], torch.stack([layouts[1][0], layouts[0][1]]))  # handed in for the first row alone


def test_a_decoder_for_inpainting_sees_what_is_known_and_nothing_else():
    torch.manual_seed(0)
    values = MICRO.model_dump() | {"unet": MICRO.unet.model_dump() | {"in_channels": 7}, "inpaint": True}
    fresh = Decoder(DecoderConfig.parse(values))
    first = fresh.unet.conv_in.weight.unflatten(1, (7, -1))
    assert first[:, :3].any()
    assert not first[:, 3:].any()  # what is known is not heard at first
    decoder = scrambled(fresh, 0, std=0.1)
    x, t, z, text = inputs()
    mask = torch.ones(2, 1, 32, 32)
    mask[..., 8:20, 8:20] = 0
    known = Known(torch.randn(2, 3, 32, 32), mask)
    out = decoder(x, t, z, text, None, known)
    assert torch.equal(decoder(x, t, z, text, None, Known(torch.where(mask.bool(), known.image, 9.0), mask)), out)
    assert (decoder(x, t, z, text, None, Known(-known.image, mask)) - out).abs().amax(dim=(1, 2, 3)).min() > 1e-4
    nothing = Known(known.image, torch.zeros_like(mask))
    assert torch.equal(decoder(x, t, z, text, None, nothing), decoder(x, t, z, text))


def test_padding_of_the_caption_changes_nothing(decoder):
    x, t, z, text = inputs()
    before = decoder(x, t, z, text)
    states = text.states.clone()
    states[0, 3:] = 1e3
    torch.testing.assert_close(decoder(x, t, z, text._replace(states=states)), before)
    longer = Text(text.pooled, torch.cat([states, states], 1), torch.cat([text.mask, torch.zeros_like(text.mask)], 1))
    torch.testing.assert_close(decoder(x, t, z, longer), before, atol=1e-5, rtol=1e-5)
    empty = text._replace(mask=torch.zeros_like(text.mask))
    assert decoder(x, t, z, empty).isfinite().all()


def test_a_new_decoder_answers_zero_with_as_many_channels_as_asked():
    for channels in (3, 6):
        model = Decoder(
            DecoderConfig.parse(MICRO.model_dump() | {"unet": MICRO.unet.model_dump() | {"out_channels": channels}})
        )
        out = model(*inputs())
        assert out.shape == (2, channels, 32, 32)
        assert not out.any()


def test_a_decoder_may_have_a_text_transformer_of_its_own():
    own = TextConfig(context=6, vocab=20, width=32, layers=1, heads=2)
    model = scrambled(Decoder(MICRO.model_copy(update={"text": own})), 0)
    text = model.encode_text(torch.tensor([[1, 5, 19, 0, 0, 0]]), torch.tensor([[True] * 3 + [False] * 3]))
    assert (text.pooled.shape, text.states.shape) == ((1, 32), (1, 6, 32))
    other = model.encode_text(torch.tensor([[1, 5, 19, 7, 7, 7]]), text.mask)
    torch.testing.assert_close(text.pooled, other.pooled)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"unet": MICRO.unet.model_dump() | {"context_width": None}}, "needs a context_width"),
        ({"text": {"context": 6, "vocab": 20, "width": 16, "layers": 1, "heads": 2}}, "text_width 32 differs"),
        ({"image_tokens": 0}, "image_tokens = 0"),
        ({"layout": {"side": 4, "width": 8}}, "in_channels is 3, expected 6"),
        ({"inpaint": True}, "in_channels is 3, expected 7"),
    ],
    ids=["context", "text", "tokens", "layout", "inpaint"],
)
def test_impossible_shapes_are_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        DecoderConfig.parse(MICRO.model_dump() | changes)
    assert "\n" not in str(error.value)
