"""Maps in closed form: the plane, the gap of clouds that are known, what is gathered from where, and the page's parts."""

import base64
import hashlib
import io
import json
import math
import re
import sys
from statistics import NormalDist

import numpy as np
import pytest
import torch
from PIL import Image
from toy_clip import save_clip
from toy_search import fill

from unclip.clip import Clip, load_clip, unit
from unclip.data import pool as pools
from unclip.errors import ConfigError, DataError, RequestError
from unclip.images import from_pixels, to_pixels
from unclip.maps import page
from unclip.maps.clouds import CAPTIONS, PICTURES, PRIOR, Cloud, clouds_of, predict
from unclip.maps.gap import first_of_each, measure
from unclip.maps.plane import lay, principal_axes
from unclip.maps.rows import THUMBNAIL, Rows, gather
from unclip.search.build import build
from unclip.search.sources import list_sources


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    return load_clip(save_clip(tmp_path_factory.mktemp("clip") / "micro", 3), device="cpu", precision="fp32")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_plane_is_numpys_svd():
    x = normal(50, 8) @ normal(8, 8, seed=1)
    x -= x.mean(0)
    axes, shares = principal_axes(x)
    _, lengths, directions = np.linalg.svd(x.numpy(), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(axes.numpy() * directions[:2], axis=1)), 1, rtol=1e-9)
    np.testing.assert_allclose(shares, (lengths**2 / (lengths**2).sum())[:2], rtol=1e-9)
    assert [bool(axis[axis.abs().argmax()] > 0) for axis in axes] == [True, True]


def test_across_a_gap_the_means_are_as_far_apart_as_they_are():
    z, text = normal(200, 6), normal(200, 6, seed=1) * torch.tensor([1, 5, 1, 1, 1, 1])
    text[:, 3] += 4
    clouds = [Cloud(PICTURES, z, list(range(200))), Cloud(CAPTIONS, text, list(range(200)))]
    plane = lay(clouds, "gap")
    pictures, captions = (places.mean(axis=0) for places in plane.places)
    assert captions[0] - pictures[0] == pytest.approx((text.mean(0) - z.mean(0)).norm().item())
    assert captions[1] == pytest.approx(pictures[1], abs=1e-9)
    assert plane.places[1][:, 1].std() > 4  # along the second axis
    assert plane.axes[0].startswith("from the pictures' mean to the captions' (")
    with pytest.raises(RequestError, match="there are no captions: take pca"):
        lay(clouds[:1], "gap")


def test_a_plane_is_that_of_the_points_it_is_fitted_on():
    flat = torch.zeros(20, 5, dtype=torch.float64)
    flat[:, 1:3] = normal(20, 2) * torch.tensor([3.0, 1.0])
    tall = torch.zeros(30, 5, dtype=torch.float64)
    tall[:, 4] = 100 * normal(30)
    clouds = [Cloud(PICTURES, flat, list(range(20))), Cloud(CAPTIONS, tall, list(range(20)))]
    alone = lay(clouds, fit="pictures").places
    np.testing.assert_allclose(np.cov(alone[0].T)[0, 1], 0, atol=1e-9)
    np.testing.assert_allclose(np.ptp(alone[1], axis=0), 0, atol=1e-9)  # what the plane does not see lies on one point
    both = lay(clouds).places
    assert np.ptp(both[1][:, 0]) > 50
    assert [len(places) for places in both] == [20, 30]
    with pytest.raises(RequestError, match=r"the plane of prior: expected .* there are pictures, captions"):
        lay(clouds, fit="prior")


def test_the_gap_of_two_gaussians_is_what_it_is():
    """Means 1.5 apart and unit variance: a plane in the middle is right with the probability Phi(.75)."""
    n, width, apart = 3000, 6, 1.5
    z, points = normal(n, width), normal(n, width, seed=1)
    points[:, 0] += apart
    gap = measure(points, z)
    expected = NormalDist().cdf(apart / 2)
    assert gap.n == n
    assert gap.distance.value == pytest.approx(apart, abs=0.08)
    assert gap.distance.low < apart < gap.distance.high
    assert gap.separable.value == pytest.approx(expected, abs=0.02)
    assert gap.separable.low < expected < gap.separable.high
    assert gap.separable.high - gap.separable.low < 0.05
    assert gap.distance_chance < 0.1


def test_clouds_that_are_one_are_no_further_apart_than_chance_has_it():
    z, points = unit(normal(800, 16)), unit(normal(800, 16, seed=1))
    gap = measure(points, z)
    assert gap.distance.value < 2 * gap.distance_chance
    assert gap.separable.value == pytest.approx(0.5, abs=0.05)
    one = torch.ones(6, 4)
    assert measure(one, one).separable.value == 0.5
    same = measure(z, z)
    assert (same.distance.value, same.separable.value, round(same.cosine.value, 6)) == (0, 0.5, 1)


def test_the_cosine_is_that_of_true_pairs():
    z = unit(normal(500, 32)).double()
    aside = unit(normal(500, 32, seed=1)).double()
    aside = unit(aside - (aside * z).sum(1, keepdim=True) * z).double()
    gap = measure(math.cos(0.7) * z + math.sin(0.7) * aside, z)
    assert gap.cosine.value == pytest.approx(math.cos(0.7), abs=1e-5)
    assert abs(gap.cosine_chance) < 0.01
    assert gap.rounded()["cosine"].keys() == {"value", "low", "high"}


def test_few_pairs_have_no_gap_and_a_caption_counts_once():
    with pytest.raises(RequestError, match="3 pictures with captions of their own: a gap is measured on at least 4"):
        measure(normal(3, 4), normal(3, 4))
    assert first_of_each(["a", "", "b", "a", "b", "c"]) == [0, 2, 5]


def test_a_folder_a_pool_and_an_index_tell_the_same(clip, squares, tmp_path):
    folder = fill(tmp_path / "pictures", range(5), {0: "a cat", 1: "a  red disc", 3: "sea"})
    rows = gather([folder], clip)
    assert rows.captions == ["a cat", "a red disc", "", "sea", ""]
    torch.testing.assert_close(rows.z.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(rows.text[[0, 1, 3]], unit(clip.texts(["a cat", "a red disc", "sea"])))
    assert rows.text[[2, 4]].abs().max() == 0
    build(list_sources([folder]), tmp_path / "index", clip)
    indexed = gather([tmp_path / "index"], clip)
    assert (indexed.captions, indexed.names) == (rows.captions, rows.names)
    torch.testing.assert_close(indexed.z, rows.z, atol=2e-3, rtol=0)
    torch.testing.assert_close(indexed.text, rows.text, atol=2e-3, rtol=0)
    assert all(thumbnail is not None and thumbnail.shape == (THUMBNAIL, THUMBNAIL, 3) for thumbnail in indexed.thumbnails)
    (folder / "003.png").unlink()
    there = [thumbnail is not None for thumbnail in gather([tmp_path / "index"], clip).thumbnails]
    assert there == [True, True, True, False, True]
    assert not any(thumbnail is not None for thumbnail in gather([tmp_path / "index"], clip, thumbnails=False).thumbnails)

    drawn = pools.build(squares, tmp_path / "pool", samples=6, size=32, name="squares")
    looked_at = gather([drawn.root], clip)
    pools.embed(drawn, clip.network, clip.tokenizer, fingerprint=clip.fingerprint)
    embedded = gather([drawn.root], clip)
    assert embedded.captions == looked_at.captions == drawn.captions
    torch.testing.assert_close(embedded.z, looked_at.z, atol=1e-5, rtol=0)
    torch.testing.assert_close(embedded.text, looked_at.text, atol=1e-5, rtol=0)
    both = gather([folder, drawn.root], clip)
    assert len(both) == 4 + 6


def test_of_many_so_many_are_drawn_from_all(clip, tmp_path):
    one, two = fill(tmp_path / "one", range(20)), fill(tmp_path / "two", range(20, 40))
    rows = gather([one, two], clip, most=10)
    assert len(rows) == 10
    assert rows.names == sorted(rows.names)
    assert {name.split("/")[-2] for name in rows.names} == {"one", "two"}
    assert gather([one, two], clip, most=10).names == rows.names
    assert gather([one, two], clip, most=10, seed=1).names != rows.names


def test_what_is_broken_is_named_and_too_little_is_refused(clip, tmp_path):
    folder = fill(tmp_path / "pictures", range(4))
    (folder / "001.png").write_bytes(b"not a picture")
    rows = gather([folder], clip)
    assert len(rows) == 3
    assert "of no format known" in rows.faults[f"{folder}/001.png"]
    (folder / "000.png").unlink()
    with pytest.raises(DataError, match=r"2 pictures in .*: a map needs at least 3, .*001.png is broken"):
        gather([folder], clip)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing to look at in"):
        gather([tmp_path / "empty"], clip)
    with pytest.raises(DataError, match="is not there"):
        gather([tmp_path / "nowhere"], clip)


def test_an_index_of_another_clip_or_width_is_refused(clip, tmp_path):
    folder = fill(tmp_path / "pictures", range(4))
    other = load_clip(save_clip(tmp_path / "other", 4), device="cpu", precision="fp32")
    build(list_sources([folder]), tmp_path / "index", other)
    with pytest.raises(DataError, match=r"was made with another CLIP, other .* give that one"):
        gather([tmp_path / "index"], clip)
    (tmp_path / "foreign/img_emb").mkdir(parents=True)
    np.save(tmp_path / "foreign/img_emb/img_emb_0.npy", np.ones((5, 512), np.float16))
    with pytest.raises(DataError, match="has embeddings of 512 numbers, but those of micro have 32: give the CLIP"):
        gather([tmp_path / "foreign"], clip)


def test_the_prior_gives_each_caption_one_z(painter):
    captions = ["a red square", "", "a blue disc", "a red square"]
    z = predict(painter, captions, seed=4)
    torch.testing.assert_close(z[[0, 2]].norm(dim=1), torch.ones(2))
    assert z[1].abs().max() == 0
    assert torch.equal(z[0], z[3])
    torch.testing.assert_close(predict(painter, captions[:1], seed=4)[0], z[0], atol=1e-4, rtol=0)


def rows_of(captions: list[str]) -> Rows:
    z, text = unit(normal(len(captions), 8)), unit(normal(len(captions), 8, seed=1))
    tiles = np.random.default_rng(0).integers(0, 256, (len(captions), THUMBNAIL, THUMBNAIL, 3), dtype=np.uint8)
    text = text * torch.tensor([[float(bool(caption))] for caption in captions])
    return Rows(z, text, captions, [f"{i}.png" for i in range(len(captions))], [*tiles[:-1], None])


def test_the_page_lets_nothing_in_and_nothing_out(tmp_path):
    hostile = '</script><img src=x onerror="alert(1)"> & <!--'
    rows = rows_of([hostile, "a cat", "", "sea"])
    clouds = clouds_of(rows, unit(normal(4, 8, seed=2)))
    assert [cloud.name for cloud in clouds] == [PICTURES, CAPTIONS, PRIOR]
    page.write_page(tmp_path / "map.html", rows, clouds, lay(clouds), title="<b>", note="a & b")
    html = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;</title>" in html
    assert html.count("</script>") == 2
    for kind, source in (("script", "<script>(.*?)</script>"), ("style", "<style>(.*?)</style>")):
        (text,) = re.findall(source, html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src &#x27;sha256-{digest}&#x27;" in html
    (data,) = re.findall('<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert not re.search(r"(src|href)=|https?://|@import|url\(", html.replace(data, ""))
    assert "<" not in data
    told = json.loads(data)
    assert told["captions"] == rows.captions
    assert [cloud["rows"] for cloud in told["clouds"]] == [[0, 1, 2, 3], [0, 1, 3], [0, 1, 3]]
    cosines = (rows.text * rows.z).sum(1)[[0, 1, 3]].tolist()
    assert told["clouds"][1]["cosines"] == pytest.approx(cosines, abs=1e-3)


def test_the_sheet_holds_each_thumbnail_in_its_cell(tmp_path):
    rows = rows_of([f"caption {i}" for i in range(7)])
    smooth = [np.full((THUMBNAIL, THUMBNAIL, 3), 30 * i, np.uint8) for i in range(6)]
    rows.thumbnails = [*smooth[:2], None, *smooth[2:]]
    clouds = clouds_of(rows)
    page.write_page(tmp_path / "map.html", rows, clouds, lay(clouds), title="t", note="n")
    html = (tmp_path / "map.html").read_text(encoding="utf-8")
    sheet = json.loads(re.findall('id="data">(.*?)</script>', html, re.DOTALL)[0])["sheet"]
    assert sheet["cells"] == [0, 1, -1, 2, 3, 4, 5]
    with Image.open(io.BytesIO(base64.b64decode(sheet["url"].split(",")[1]))) as image:
        pixels = np.asarray(image.convert("RGB"))
    for row, cell in enumerate(sheet["cells"]):
        if cell >= 0:
            top, left = cell // sheet["columns"] * THUMBNAIL, cell % sheet["columns"] * THUMBNAIL
            middle = pixels[top + 24, left + 24].astype(int)
            assert np.abs(middle - rows.thumbnails[row][24, 24].astype(int)).max() < 6


def test_the_page_is_bounded(tmp_path, monkeypatch):
    rows = rows_of([f"caption {i}" for i in range(40)])
    monkeypatch.setattr(page, "THUMBNAILS", 30)
    monkeypatch.setattr(page, "MOST_BYTES", 40_000)
    clouds = clouds_of(rows)
    page.write_page(tmp_path / "map.html", rows, clouds, lay(clouds), title="t", note="n")
    sheet = json.loads(re.findall('id="data">(.*?)</script>', (tmp_path / "map.html").read_text(), re.DOTALL)[0])["sheet"]
    assert sum(cell >= 0 for cell in sheet["cells"]) == 30
    assert len(base64.b64decode(sheet["url"].split(",")[1])) <= 40_000


def test_thumbnails_are_what_clip_is_shown(clip, tmp_path):
    folder = fill(tmp_path / "pictures", range(3))
    seen = gather([folder], clip).thumbnails[0]
    assert seen is not None
    with Image.open(folder / "000.png") as picture:
        square = np.asarray(picture.crop((5, 0, 35, 30)).resize((32, 32), Image.Resampling.BICUBIC))
    again = to_pixels(torch.nn.functional.interpolate(from_pixels(square)[None], THUMBNAIL, mode="bicubic"))[0]
    assert np.abs(again.astype(int) - seen.astype(int)).mean() < 4


def test_umap_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    clouds = [Cloud(PICTURES, unit(normal(5, 4)), list(range(5)))]
    with pytest.raises(ConfigError, match=r"--method umap needs umap-learn: install unclip\[map\]"):
        lay(clouds, "umap")
