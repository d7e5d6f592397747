"""Which parts make an unCLIP, in which order, and whether they speak of the same embeddings, captions and tokens."""

from collections.abc import Sequence

from unclip.errors import WeightsError
from unclip.models.clip import CLIPConfig
from unclip.models.decoder import Decoder, DecoderConfig
from unclip.models.laion_prior import LaionPrior, LaionPriorConfig
from unclip.models.prior import Prior, PriorConfig
from unclip.shelf import Shelf, Stage, UpsamplerStage

PriorStage = Stage[Prior | LaionPrior, PriorConfig | LaionPriorConfig]
DecoderStage = Stage[Decoder, DecoderConfig]


def only(shelf: Shelf, kind: str) -> str:
    """The name of the only part of a kind."""
    names = shelf.names(kind)
    if len(names) != 1:
        raise WeightsError(
            f"{shelf.source.where} has {len(names)} parts of the kind {kind}, expected one: it has "
            f"{', '.join(shelf.source.networks)}"
        )
    return names[0]


def chain(name: str, decoder: DecoderStage | None, upsamplers: Sequence[UpsamplerStage]) -> list[UpsamplerStage]:
    """The upsamplers in the order they are run in, from the decoder's side up; WeightsError where one does not join."""
    ordered = sorted(upsamplers, key=lambda stage: stage.cfg.high)
    if decoder is None:
        if upsamplers:
            raise WeightsError(f"{name} has upsamplers and no decoder: there is nothing to enlarge")
        return []
    side = decoder.cfg.unet.image_size
    for stage in ordered:
        if stage.cfg.low != side:
            raise WeightsError(f"{name}: an upsampler takes {stage.cfg.low} px, but what is before it makes {side} px")
        side = stage.cfg.high
    return ordered


def check(
    where: str, clip: CLIPConfig, end_token: int | None, prior: PriorStage | None, decoder: DecoderStage | None
) -> None:
    """WeightsError unless the parts speak of the same embeddings, captions and tokens; `end_token` is the tokenizer's."""
    pairs = [("clip.end_token", clip.end_token, "the tokenizer's", end_token)]
    for name, stage in (("prior", prior), ("decoder", decoder)):
        if stage is not None:
            shape = stage.cfg
            text = (
                (shape.embed, shape.embed) if isinstance(shape, LaionPriorConfig) else (shape.text_embed, shape.text_width)
            )
            pairs += [
                (f"{name}.embed", shape.embed, "clip.embed", clip.embed),
                (f"{name}.text_embed", text[0], "clip.embed", clip.embed),
                (f"{name}.text_width", text[1], "clip.text.width", clip.text.width),
            ]
    for name, given, other, expected in pairs:
        if given != expected:
            raise WeightsError(f"{where}: {name} is {given}, but {other} is {expected}: the parts are of different models")
    if prior is not None and prior.cfg.context < clip.text.context:
        raise WeightsError(
            f"{where}: prior.context is {prior.cfg.context}, too short for clip.text.context {clip.text.context}"
        )
