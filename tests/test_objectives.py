"""Training tasks: batches are functions of positions, coins fall as often as the paper says, losses are the formulas'."""

import pytest
import torch
from conftest import Squares, scrambled
from torch import nn

from unclip.data import pool as pools
from unclip.data.pool import NULL_ROW, Embedded
from unclip.diffusion.process import DiffusionConfig, draw_timesteps, q_sample
from unclip.errors import ConfigError, DataError
from unclip.images import resize
from unclip.models.clip import SIZES as CLIPS
from unclip.models.decoder import SIZES as DECODERS
from unclip.models.decoder import DecoderConfig
from unclip.models.prior import SIZES as PRIORS
from unclip.train.objectives.clip import ClipData, ClipObjective, retrieval
from unclip.train.objectives.decoder import DecoderData, DecoderObjective
from unclip.train.objectives.prior import PriorData, PriorObjective

CUT = {"ids", "mask", "states"}  # columns that are padding in the whole batch are left out
V, X0 = DiffusionConfig(prediction="v"), DiffusionConfig(prediction="x0")


@pytest.fixture
def clip_task(pool, tokenizer) -> ClipObjective:
    torch.manual_seed(0)
    return ClipObjective(CLIPS["micro"], ClipData(pool=pool.root, valid=pool.root), tokenizer)


@pytest.fixture
def prior_task(pool) -> PriorObjective:
    torch.manual_seed(0)
    return PriorObjective(PRIORS["micro"], X0, PriorData(pool=pool.root, valid=pool.root))


@pytest.fixture
def decoder_task(pool) -> DecoderObjective:
    torch.manual_seed(0)
    return DecoderObjective(DECODERS["micro"], V, DecoderData(pool=pool.root, valid=pool.root))


@pytest.mark.parametrize("task", ["clip_task", "prior_task", "decoder_task"])
def test_a_batch_is_a_function_of_its_positions(task, request):
    objective = request.getfixturevalue(task)
    positions = range(1000, 1012)
    one, again = objective.batch(positions), objective.batch(positions)
    assert all(torch.equal(one[name], again[name]) for name in one)
    parts = [objective.batch([position]) for position in positions]
    for name in one.keys() - CUT:
        assert torch.equal(one[name], torch.cat([part[name] for part in parts]))
    epoch = objective.batch(range(48))
    distinct = {row.numpy().tobytes() for row in epoch["z" if "z" in epoch else "images"]}
    assert len(distinct) == 48  # every sample once


@pytest.mark.parametrize("task", ["clip_task", "prior_task", "decoder_task"])
def test_the_loss_is_a_function_of_batch_and_generator(task, request):
    objective = request.getfixturevalue(task)
    scrambled(objective.module, 0)
    objective.module.requires_grad_()
    batch = objective.batch(range(8))
    losses = [objective.loss(batch, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)]
    assert losses[0].dtype == torch.float32
    assert losses[0].shape == ()
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2]) == (task == "clip_task")  # CLIP has no noise
    losses[0].backward()
    gradients = [parameter.grad for parameter in objective.module.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("task", "steps"), [("clip_task", 40), ("prior_task", 20), ("decoder_task", 6)])
def test_a_few_steps_lower_the_loss(task, steps, request):
    objective = request.getfixturevalue(task)
    optimizer = torch.optim.AdamW(objective.module.parameters(), lr=3e-3)
    batch = objective.batch(range(24))
    losses = []
    for _ in range(steps):
        loss, _ = objective.loss(batch, torch.Generator().manual_seed(0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_pictures_and_captions_stay_together(clip_task, squares, tokenizer):
    batch = clip_task.batch([5, 77])
    for row, position in enumerate((5, 77)):
        sample = squares.sample(clip_task.order(position), 32)
        assert torch.equal(batch["images"][row], torch.from_numpy(sample.image))
        ids = tokenizer([sample.caption]).ids[0]
        length = batch["ids"].shape[1]
        assert torch.equal(batch["ids"][row], ids[:length])
        assert not ids[length:].any()


def test_equal_captions_are_no_negatives(pool, tokenizer, monkeypatch):
    objective = ClipObjective(CLIPS["micro"], ClipData(pool=pool.root), tokenizer)
    seen = []
    monkeypatch.setattr(objective.module, "loss", lambda z, pooled, same: seen.append(same) or z.sum())
    position = next(p for p in range(48, 200) if objective.order(p) == objective.order(3))
    objective.loss(objective.batch([3, 4, position]), torch.Generator())
    assert seen[0].tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_wrong_captions_stand_beside_the_right_one(pool, tokenizer, monkeypatch):
    monkeypatch.setitem(pool.samples[7]["meta"], "wrong", ["a teal square", "a gray square", "a pink square"])
    monkeypatch.setitem(pool.samples[8]["meta"], "wrong", [pool.samples[9]["caption"]])
    monkeypatch.setattr("unclip.train.objectives.clip.Pool", lambda root: pool)
    objective = ClipObjective(CLIPS["micro"], ClipData(pool=pool.root, wrong=2), tokenizer)
    seven, eight, nine = (next(p for p in range(48) if objective.order(p) == row) for row in (7, 8, 9))
    batch = objective.batch([nine, seven, eight])
    assert len(batch["images"]) == 3
    assert len(batch["ids"]) == 3 + 2 + 1
    told = {tuple(row.tolist()) for row in tokenizer(pool.samples[7]["meta"]["wrong"]).ids[:, : batch["ids"].shape[1]]}
    assert {tuple(row.tolist()) for row in batch["ids"][3:5]} < told
    assert torch.equal(batch["ids"][5], batch["ids"][0])
    seen = []
    monkeypatch.setattr(objective.module, "loss", lambda z, pooled, same: seen.append(same) or z.sum())
    objective.loss(batch, torch.Generator())
    assert seen[0][0].tolist() == [True, False, False, False, False, True]  # wrong of another, and its own
    assert not seen[0][1:, 3:].any()


def test_retrieval_of_perfect_and_of_shuffled_embeddings(clip_task):
    z = torch.eye(32)[torch.arange(60) % 30]
    assert retrieval(clip_task.module, z, z, choices=30) == (1.0, 1.0)
    assert retrieval(clip_task.module, z, z.roll(1, 0), choices=30) == (0.0, 0.0)
    half = torch.cat([z[:30], z[30:].roll(1, 0)])
    assert retrieval(clip_task.module, z, half, choices=30) == (0.5, 0.5)


def test_clips_figures_are_by_split_and_its_preview_has_a_row_a_caption(clip_task):
    clip_task.module.eval()
    with torch.no_grad():
        figures = clip_task.evaluate(clip_task.module)
        sheet = clip_task.preview(clip_task.module)
    assert set(figures) == {f"{split}/{way}" for split in ("train", "pair") for way in ("image_to_text", "text_to_image")}
    assert all(0 <= figure <= 1 for figure in figures.values())
    assert sheet.width > 6 * 32


class Recorder(nn.Module):
    """Stands in for a network: answers zero and keeps what it was asked."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg, self.asked = cfg, []

    def forward(self, *given):
        self.asked.append(given)
        return torch.zeros_like(given[0])


def test_z_and_caption_are_dropped_independently_as_often_as_the_paper_says(decoder_task):
    """Section 2.1: z 10 %, caption 50 %. So .45 both, .45 z only, .05 caption only, .05 neither."""
    recorder = decoder_task.module = Recorder(DECODERS["micro"])
    batch = decoder_task.batch(range(48))
    batch = {name: tensor[torch.arange(480) % 48] for name, tensor in batch.items()}
    batch["images"] = torch.zeros(480, 1, 1, 3, dtype=torch.uint8)
    decoder_task.side = 1
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        decoder_task.loss(batch, generator)
    null = decoder_task.embedded.pooled[NULL_ROW]
    drop_z = torch.cat([given[4] for given in recorder.asked])
    drop_text = torch.cat([(given[3].pooled == null).all(1) for given in recorder.asked])
    total = len(drop_z)
    assert total == 24_000
    for z_gone, text_gone, share in ((0, 0, 0.45), (0, 1, 0.45), (1, 0, 0.05), (1, 1, 0.05)):
        count = ((drop_z == bool(z_gone)) & (drop_text == bool(text_gone))).sum().item()
        assert abs(count / total - share) < 4 * (share * (1 - share) / total) ** 0.5
    text = recorder.asked[0][3]
    gone = drop_text[:480]
    assert torch.equal(text.mask[gone], decoder_task.embedded.mask[NULL_ROW].expand(int(gone.sum()), -1))
    assert torch.equal(text.states[~gone], batch["states"][~gone].float())
    assert torch.equal(recorder.asked[0][2], batch["z"])


def test_the_decoder_learns_v_at_evenly_spread_timesteps(decoder_task):
    recorder = decoder_task.module = Recorder(DECODERS["micro"])
    batch = decoder_task.batch(range(48))
    generator = torch.Generator().manual_seed(3)
    loss, _ = decoder_task.loss(batch, generator)
    x_t, t = recorder.asked[0][:2]
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(t, draw_timesteps(decoder_task.schedule, 48, generator, t.device))
    noise = torch.randn(x_t.shape, generator=generator)
    x0 = decoder_task.pool.tensor([decoder_task.order(position) for position in range(48)])
    schedule = decoder_task.schedule
    torch.testing.assert_close(x_t, q_sample(schedule, x0, t, noise))
    signal, spread = (getattr(schedule, name)[t].float().view(-1, 1, 1, 1) for name in ("signal", "noise"))
    assert loss.item() == pytest.approx((signal * noise - spread * x0).square().mean().item(), rel=1e-5)


@pytest.fixture
def with_layout(pool):
    """Makes decoder tasks whose decoder has a layout of 4 px; takes changes of their data."""
    unet = DECODERS["micro"].unet.model_dump() | {"in_channels": 6}
    shape = changed(DECODERS["micro"], unet=unet, layout={"side": 4, "width": 32, "depth": 2})

    def make(**data) -> DecoderObjective:
        torch.manual_seed(0)
        return DecoderObjective(shape, V, DecoderData(pool=pool.root, **data))

    return make


def test_a_layout_is_trained_first_and_then_stays(with_layout):
    def error(task) -> float:
        batch = task.batch(range(48))
        drawn = task.module.layout(batch["z"].float(), batch["pooled"].float())
        return (drawn - resize(batch["images"].movedim(-1, 1).float() / 127.5 - 1, 4)).square().mean().item()

    tasks = [with_layout(layout_steps=steps) for steps in (0, 60, 60)]
    others = {name: tensor.clone() for name, tensor in tasks[1].module.unet.state_dict().items()}
    said = []
    for task in tasks:
        task.prepare(said.append)
    assert [line.split(",")[0] for line in said] == 2 * ["the layout first: step 60 of 60"]
    before, after, again = map(error, tasks)
    assert after < 0.5 * before
    assert again == after
    assert all(torch.equal(tensor, others[name]) for name, tensor in tasks[1].module.unet.state_dict().items())
    loss, _ = tasks[1].loss(tasks[1].batch(range(8)), torch.Generator().manual_seed(1))
    loss.backward()
    assert all(parameter.grad is None for parameter in tasks[1].module.layout.parameters())


def test_z_is_noised_by_as_much_as_asked(decoder_task):
    recorder = decoder_task.module = Recorder(DECODERS["micro"])
    batch = {name: tensor[torch.arange(4800) % 48] for name, tensor in decoder_task.batch(range(48)).items()}
    batch["images"] = torch.zeros(4800, 1, 1, 3, dtype=torch.uint8)
    decoder_task.side = 1
    decoder_task.data = DecoderData(pool=decoder_task.data.pool, z_noise=0.6)
    decoder_task.loss(batch, torch.Generator().manual_seed(0))
    noise = (recorder.asked[0][2] - batch["z"]) / decoder_task.embedded.z.float().std(0)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.square().mean().item() == pytest.approx(0.6**2 / 3, rel=0.05)  # the share is uniform: E[s^2] = 1/3
    sizes = noise.square().mean(1).sqrt()
    assert sizes.min() < 0.05
    assert 0.5 < sizes.max() < 0.9


@pytest.fixture
def inpainting_task(pool) -> DecoderObjective:
    torch.manual_seed(0)
    micro = DECODERS["micro"]
    model = DecoderConfig.parse(micro.model_dump() | {"unet": micro.unet.model_dump() | {"in_channels": 7}, "inpaint": True})
    return DecoderObjective(model, V, DecoderData(pool=pool.root, valid=pool.root, inpaint=0.4))


def test_a_part_of_some_pictures_is_known_as_often_as_asked(inpainting_task):
    recorder = inpainting_task.module = Recorder(DECODERS["micro"])
    recorder.null_z = torch.zeros(32)
    for start in range(0, 960, 48):
        inpainting_task.loss(inpainting_task.batch(range(start, start + 48)), torch.Generator().manual_seed(start))
    shown, masks = [], []
    for x_t, *_, known in recorder.asked:
        assert known.image.shape == x_t.shape
        masks.append(known.mask)
        shown.append(known.mask.amax((1, 2, 3)))
    assert torch.cat(shown).mean().item() == pytest.approx(0.4, abs=0.05)
    assert 0.15 < torch.cat(masks).mean() < 0.3  # about half of those
    truth = resize(inpainting_task.batch(range(912, 960))["images"].movedim(-1, 1).float() / 127.5 - 1, 32)
    assert torch.equal(recorder.asked[-1][-1].image, truth)


def test_z_is_noised_more_where_a_part_is_known(inpainting_task):
    inpainting_task.data = inpainting_task.data.model_copy(update={"inpaint_z_noise": 2.0})
    recorder = inpainting_task.module = Recorder(DECODERS["micro"])
    recorder.null_z = torch.zeros(32)
    batch = inpainting_task.batch(range(48))
    for seed in range(10):
        inpainting_task.loss(batch, torch.Generator().manual_seed(seed))
    moved = torch.cat([(z - batch["z"].float()).norm(dim=1) for _, _, z, *_ in recorder.asked])
    shown = torch.cat([known.mask.amax((1, 2, 3)) > 0 for *_, known in recorder.asked])
    assert not moved[~shown].any()
    assert moved[shown].mean() > 0


def test_inpainting_has_a_figure_of_its_own_and_wants_a_decoder_that_can(inpainting_task, decoder_task, pool):
    with torch.no_grad():
        figures = inpainting_task.evaluate(scrambled(inpainting_task.module, 0))
    assert figures["holes"] > 0
    with torch.no_grad():
        assert "holes" not in decoder_task.evaluate(scrambled(decoder_task.module, 0))
    with pytest.raises(ConfigError, match=r"data\.inpaint is 0\.5, but model\.inpaint is false"):
        DecoderObjective(DECODERS["micro"], V, DecoderData(pool=pool.root, inpaint=0.5))


def test_the_decoders_preview_and_figures_are_reproducible(decoder_task, monkeypatch):
    monkeypatch.setattr("unclip.train.objectives.decoder.SHOWN", 4)
    module = scrambled(decoder_task.module, 0)
    with torch.no_grad():
        sheets = [decoder_task.preview(module) for _ in range(2)]
        figures = [decoder_task.evaluate(module) for _ in range(2)]
    assert sheets[0].tobytes() == sheets[1].tobytes()
    assert 2 * 64 < sheets[0].width < 3 * 64
    assert figures[0] == figures[1]
    assert figures[0]["loss"] > 0


def test_the_prior_sees_standardised_z_and_one_caption_in_ten_is_the_empty_one(prior_task):
    embedded = prior_task.embedded
    torch.testing.assert_close(prior_task.module.z_mean, embedded.z.mean(0))
    torch.testing.assert_close(prior_task.module.z_std, embedded.z.std(0))
    pooled = torch.cat([prior_task.batch(range(start, start + 480))["pooled"] for start in range(0, 9600, 480)])
    dropped = (pooled == embedded.pooled[NULL_ROW]).all(1)
    assert abs(dropped.float().mean().item() - 0.1) < 4 * (0.09 / 9600) ** 0.5
    first = dropped[:480].view(10, 48).float().mean(0)
    assert (first < 1).all()  # not always the same samples
    batch = prior_task.batch(range(200))
    asked = []
    prior_task.module.register_forward_pre_hook(lambda module, given: asked.append(given))
    loss, metrics = prior_task.loss(batch, torch.Generator().manual_seed(0))
    z_t, t, text = asked[0]
    assert z_t.square().mean().item() == pytest.approx(1.0, abs=0.1)
    assert text.states.dtype == torch.float32
    assert set(metrics) == {"cosine"}
    output = prior_task.module(z_t, t, text)
    assert loss.item() == pytest.approx(
        (output - prior_task.module.standardise(batch["z"])).square().mean().item(), rel=1e-4
    )


def test_the_priors_figures_tell_whether_diversity_is_kept(prior_task):
    module = prior_task.module.eval()
    assert module.x0_error.isnan().all()
    with torch.no_grad():
        figures = prior_task.evaluate(module)
    errors = module.x0_error
    assert errors.isfinite().all()
    assert errors.min() > 0
    assert set(figures) == {f"{split}/{name}" for split in ("train", "pair") for name in ("cosine", "spread")}
    assert all(figures[f"{split}/spread"] > 0 for split in ("train", "pair"))
    assert prior_task.preview(prior_task.module) is None


def changed(config, **values):
    return type(config).parse(config.model_dump() | values)


def test_what_does_not_fit_the_pool_is_one_line(pool, tokenizer, tmp_path):
    clip, prior, decoder = CLIPS["micro"], PRIORS["micro"], DECODERS["micro"]
    vision = clip.vision.model_dump() | {"image_size": 64}
    learned = DiffusionConfig(learn_sigma=True)
    small = pools.build(Squares(), tmp_path / "small", samples=4, size=16, name="squares")
    files = pool.root / "embedded"
    (small.root / "embedded").mkdir()
    for path in files.iterdir():
        (small.root / "embedded" / path.name).write_bytes(path.read_bytes())
    faults = [
        (lambda: ClipObjective(changed(clip, vision=vision), ClipData(pool=pool.root), tokenizer), "is 32 px"),
        (
            lambda: ClipObjective(
                changed(clip, text=clip.text.model_dump() | {"vocab": 9}), ClipData(pool=pool.root), tokenizer
            ),
            "model.text.vocab is 9",
        ),
        (lambda: ClipObjective(changed(clip, end_token=7), ClipData(pool=pool.root), tokenizer), "model.end_token is 7"),
        (lambda: PriorObjective(changed(prior, embed=64), X0, PriorData(pool=pool.root)), "but the prior's are"),
        (lambda: PriorObjective(changed(prior, context=8), X0, PriorData(pool=pool.root)), "captions of 16 tokens"),
        (lambda: PriorObjective(prior, learned, PriorData(pool=pool.root)), "learn_sigma"),
        (lambda: DecoderObjective(changed(decoder, embed=64), V, DecoderData(pool=pool.root)), "but the decoder's are"),
        (lambda: DecoderObjective(decoder, learned, DecoderData(pool=pool.root)), "out_channels is 3"),
        (lambda: DecoderObjective(decoder, V, DecoderData(pool=small.root)), "is 16 px, but the decoder paints 32"),
    ]
    for make, words in faults:
        with pytest.raises(ConfigError, match=words) as error:
            make()
        assert "\n" not in str(error.value)
    for objective, data in ((PriorObjective, PriorData), (DecoderObjective, DecoderData)):
        config = prior if objective is PriorObjective else decoder
        with pytest.raises(DataError, match="another CLIP"):
            objective(config, V, data(pool=pool.root, clip="0" * 64))
        fine = objective(config, V, data(pool=pool.root, clip=Embedded(pool).clip))
        assert fine.embedded.clip == Embedded(pool).clip
