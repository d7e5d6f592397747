"""`unclip data`: what inspection counts and draws, on the command line."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from unclip.cli.data import app
from unclip.data.inspect import histogram
from unclip.errors import DataError

RUN = CliRunner()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for number, size in enumerate([(40, 40), (100, 50), (70, 140), (300, 300)]):
        Image.new("RGB", size, (50 * number, 0, 0)).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text("word " * (number + 1))
    (root / "broken.png").write_bytes(b"broken")
    (root / "broken.txt").write_text("broken")
    return root


def test_inspection_counts_and_draws(folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    result = RUN.invoke(app, ["inspect", str(folder), "--out", str(sheet), "-n", "10", "--size", "32", "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["kind"] == "FolderSource"
    assert figures["items"] == 5
    assert figures["sampled"] == 10
    assert figures["captions_distinct"] == 4
    assert sum(figures["caption_words"].values()) == 10
    assert set(figures["short_side"]) == {"0 to 64", "64 to 128", "256 to 512"}
    assert set(figures["aspect"]) == {"0.5 to 0.75", "0.95 to 1.05", "2 and more"}
    assert list(figures["broken"]["named"]) == ["broken.png"]
    with Image.open(sheet) as image:
        assert image.width > 8 * 32
        assert image.height > 2 * 32 + 2 * 12  # two rows, captions below


def test_people_read_bars(folder):
    result = RUN.invoke(app, ["inspect", str(folder), "--size", "16"])
    assert result.exit_code == 0, result.output
    assert "█" in result.stdout
    assert "broken.png: not a readable picture" in result.stdout


def test_an_error_goes_up_to_the_root_command(tmp_path):
    result = RUN.invoke(app, ["inspect", str(tmp_path / "nowhere")])
    assert isinstance(result.exception, DataError)
    assert "there is no" in str(result.exception)


def test_icons_from_a_folder_without_tarballs(tmp_path):
    result = RUN.invoke(app, ["icons", "--out", str(tmp_path / "out"), "--packages", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert "iconify-json-fluent-emoji-1.2.7.tgz" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_histogram_bins():
    assert histogram([0, 2, 3, 79, 80, 1000], (0, 3, 80)) == {"0 to 3": 2, "3 to 80": 2, "80 and more": 2}
