"""log.jsonl, the pictures and report.html of a run."""

import hashlib
import json
import re
from itertools import pairwise

import pytest
import torch
from PIL import Image
from toy_training import Toy, run_toy

from unclip.train.chart import chart
from unclip.train.log import RunLog, Window, read_log
from unclip.train.report import write_report


def test_a_tick_says_all_that_a_curve_needs(tmp_path):
    run_toy(tmp_path, steps=9)
    ticks = [entry for entry in read_log(tmp_path) if entry["event"] == "tick"]
    assert [entry["step"] for entry in ticks] == [4, 8, 9]  # the last step too
    assert [entry["images"] for entry in ticks] == [32, 64, 72]
    vitals = {"loss", "worst", "grad_norm", "lr", "ema_gap", "images_per_second", "data_wait", "memory_gb", "time"}
    assert all(entry.keys() == vitals | {"event", "step", "images"} for entry in ticks)
    assert all(0 <= entry["data_wait"] <= 1 and entry["images_per_second"] > 0 for entry in ticks)


def test_a_tick_is_the_mean_since_the_last(tmp_path):
    run_toy(tmp_path / "each", steps=8, log_every=1)
    run_toy(tmp_path / "four", steps=8, log_every=4)
    each, four = ([e["loss"] for e in read_log(tmp_path / run) if e["event"] == "tick"] for run in ("each", "four"))
    assert four == [pytest.approx(sum(each[:4]) / 4), pytest.approx(sum(each[4:]) / 4)]


def test_a_metric_that_some_steps_lack_is_averaged_over_those_that_have_it():
    window = Window()
    window.add({"loss": 1.0, "late": torch.tensor(4.0)})
    window.add({"loss": 2.0})
    assert window.read() == {"loss": [1.0, 2.0], "late": [4.0]}
    assert window.means() == {"loss": 1.5, "late": 4.0}
    assert window.means() == {}


def test_a_log_torn_by_a_kill_is_read_and_mended(tmp_path):
    log = RunLog(tmp_path)
    for step in range(4):
        log.write("tick", step)
    with log.path.open("a") as file:
        file.write('{"event": "tick", "st')
    assert [entry["step"] for entry in read_log(tmp_path)] == [0, 1, 2, 3]
    log.rewind(2)
    log.write("tick", 3)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [0, 1, 2, 3]


def test_pictures_are_numbered_and_say_whose_they_are(tmp_path):
    toy = Toy()
    run_toy(tmp_path, toy=toy, steps=12, ema=0.0)
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert names == [f"{step:06d}.{kind}" for step in (0, 10, 12) for kind in ("json", "png")]
    facts = json.loads((tmp_path / "previews" / "000012.json").read_text())
    digest = hashlib.sha256(b"".join(parameter.detach().numpy().tobytes() for parameter in toy.module.parameters()))
    assert facts == {"step": 12, "images": 96, "seed": 0, "ema_sha256": digest.hexdigest()}  # ema 0 is the weights
    with Image.open(tmp_path / "previews" / "000012.png") as image:
        assert image.size == (6, 6)


def test_the_report_is_one_page_that_needs_only_its_folder(tmp_path):
    run_toy(tmp_path, steps=12)
    run_toy(tmp_path, steps=30)
    page = (tmp_path / "report.html").read_text()
    for title in ("loss <b>", "held_out <b>", "gradient norm", "learning rate", "images a second", "waiting for data"):
        assert title in page
    assert page.count('class="mark"') == page.count("<svg")  # one restart, on every chart
    pictures = re.findall(r'<img loading="lazy" src="([^"]+)"', page)
    assert pictures == [f"previews/{step:06d}.png" for step in (30, 20, 12, 10, 0)]
    assert all((tmp_path / picture).exists() for picture in pictures)
    assert "save_every: 3" in page
    assert "http" not in page
    assert "<script" not in page


def test_the_report_of_a_strange_config_is_still_text(tmp_path):
    run_toy(tmp_path, steps=1)
    (tmp_path / "config.yaml").write_text("prompt: <script>alert(1)</script>\n")
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_charts_of_few_many_and_odd_points():
    assert chart("none", []) == ""
    assert chart("none", [(1, float("nan"))]) == ""
    assert "<circle" in chart("one", [(5, 2.0)])
    assert "<b>7</b>" in chart("flat", [(1, 7.0), (2, 7.0)])
    assert "<b>0</b>" in chart("zero", [(1, 0.0), (2, 0.0)])
    many = chart("many", [(i, 1.0 + i % 3) for i in range(100_000)], smooth=True)
    assert len(many) < 20_000
    assert many.count("<polyline") == 2
    numbers = [float(number) for number in re.findall(r"[\d.]+", " ".join(re.findall(r'points="([^"]+)"', many)))]
    assert all(0 <= number <= 560 for number in numbers)


def test_a_chart_is_logarithmic_where_that_shows_more():
    points = [(i, 10.0 ** -(i / 10)) for i in range(41)]
    ((straight,),) = [re.findall(r'points="([^"]+)"', chart("decades", points))]
    heights = [float(pair.split(",")[1]) for pair in straight.split()]
    steps = [after - before for before, after in pairwise(heights)]
    assert max(steps) - min(steps) < 0.2  # a power is a straight line
    assert ">0.001<" in chart("decades", points)
    assert ">0<" in chart("both signs", [(0, -1.0), (1, 1.0)])
