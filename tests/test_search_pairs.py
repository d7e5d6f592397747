"""A prior trains on an index with captions, ours or another's, and what it then gives is told and kept."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from toy_clip import save_clip
from toy_search import fill

from unclip.cli import main
from unclip.clip import load_clip
from unclip.data.pool import Embedded
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import ConfigError, DataError
from unclip.models.prior import SIZES
from unclip.search.build import build
from unclip.search.layout import Index
from unclip.search.pairs import read_pairs
from unclip.search.sources import list_sources
from unclip.train.bundle import pack
from unclip.train.ema import Ema
from unclip.train.objectives.prior import PriorData, PriorObjective
from unclip.train.recipe import make_objective, parse_recipe, recorded
from unclip.train.state import TrainState, save_checkpoint

X0 = DiffusionConfig(prediction="x0")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clips") / "micro", 1)


def published(folder, rows: np.ndarray, **columns):
    """An index as clip-retrieval writes one."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    np.save(folder / "img_emb" / "img_emb_0000.npy", rows.astype(np.float16))
    pq.write_table(pa.table(columns), folder / "metadata" / "metadata_0000.parquet")
    return folder


def directions(count: int, width: int = 32) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_prior_trains_on_our_index(tmp_path, bundle, capsys):
    clip = load_clip(bundle, precision="fp32")
    fill(tmp_path / "p", range(8), {2: "a red disc", 5: "a cat on a mat", 6: "a red disc"})
    build(list_sources([tmp_path / "p"]), tmp_path / "index", clip)
    assert main(["data", "embed", str(tmp_path / "index"), "--clip", str(bundle)]) == 0
    assert "3 images and 3 captions" in (said := capsys.readouterr().out)
    assert "its z have length one" in said
    embedded = Embedded(tmp_path / "index", clip=clip.fingerprint)
    assert embedded.unit
    assert np.array_equal(embedded.z.numpy(), Index(tmp_path / "index").images[0][[2, 5, 6]].astype(np.float32))
    assert embedded.caption.tolist() == [1, 2, 1]
    data = PriorData(pool=tmp_path / "index", valid=tmp_path / "index")
    objective = PriorObjective(SIZES["micro"], X0, data)
    loss, _ = objective.loss(objective.batch(range(6)), torch.Generator().manual_seed(0))
    assert loss.isfinite()
    assert set(objective.evaluate(objective.module)) == {"valid/cosine", "valid/spread"}


def test_published_embeddings_are_pairs_as_they_are(tmp_path):
    captions = ["a dog", None, "", "two cats"]
    folder = published(tmp_path / "laion", directions(4), image_path=list("abcd"), caption=captions, NSFW=[0.0] * 4)
    pairs = read_pairs(Index(folder), "f" * 64, 32)
    assert (pairs.captions, pairs.unit) == (["a dog", "two cats"], True)
    assert torch.equal(pairs.z, torch.from_numpy(directions(4).astype(np.float16)[[0, 3]]).float())
    raw = published(tmp_path / "raw", 9 * directions(4), caption=captions)
    assert not read_pairs(Index(raw), "f" * 64, 32).unit


def test_what_is_no_pair_or_of_another_clip(tmp_path, bundle):
    clip = load_clip(bundle, precision="fp32")
    fill(tmp_path / "p", [1], {1: "one"})
    build(list_sources([tmp_path / "p"]), tmp_path / "index", clip)
    bare = published(tmp_path / "bare", directions(4), image_path=list("abcd"))
    for folder, fingerprint, width, words in (
        (tmp_path / "index", "f" * 64, 32, r"made with another CLIP, micro \(.*give that one"),
        (tmp_path / "index", clip.fingerprint, 64, "embeddings of 32 numbers, but this CLIP's have 64"),
        (bare, "f" * 64, 32, "has no captions"),
    ):
        with pytest.raises(DataError, match=words):
            read_pairs(Index(folder), fingerprint, width)


def test_the_lengths_are_recorded_and_not_mixed(tmp_path, pool, bundle, micro_bundle):
    folder = published(tmp_path / "index", directions(4), caption=list("abcd"))
    assert main(["data", "embed", str(folder), "--clip", str(bundle)]) == 0
    sampling = {"steps": 3, "guidance": {"threshold": "none"}}
    values = {"part": "prior", "model": "micro", "sampling": sampling, "data": {"pool": str(folder)}, "train": {"steps": 1}}
    recipe = parse_recipe(values, where="test")
    objective = make_objective(recipe, tmp_path / "run")
    config = recorded(recipe, objective)
    assert config["data"]["unit"] is True
    header = folder / "embedded" / "embedded.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"clip": Embedded(pool).clip}))
    for data in (PriorData(pool=folder, valid=pool.root), PriorData(pool=pool.root, unit=True)):
        with pytest.raises(ConfigError, match=r"holds z of CLIP's own lengths, expected length one"):
            PriorObjective(SIZES["micro"], X0, data)

    module = objective.module
    module.set_statistics(torch.zeros(32), torch.ones(32))
    state = TrainState(module, torch.optim.AdamW(module.parameters()), Ema(module, decay=0.5, power=None), step=1)
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run", state, {})
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config | {"train": {"steps": 1}}))
    card = {"name": "tiny", "version": "1", "card": ""}
    packed = pack([tmp_path / "run"], tmp_path / "bundle", base=bundle, **card)
    assert json.loads((packed / "unclip.json").read_text())["provenance"]["prior"]["z"] == "of length one"
    with pytest.raises(ConfigError, match="gives z of length one, but the decoder takes CLIP's own"):
        pack([tmp_path / "run"], tmp_path / "whole", base=micro_bundle, **card)
