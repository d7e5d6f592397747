"""A model that comes with words: its bundle, what it paints, the notes of the command line, and the picture's settings."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip import pipeline
from unclip.cli import main
from unclip.cli.tasks_info import command
from unclip.errors import RequestError, WeightsError
from unclip.images import read_settings
from unclip.inpainting import Sides, inpaint, outpaint
from unclip.request import Options
from unclip.tasks import image_to_image, interpolate, text_diff
from unclip.train.bundle import pack
from unclip.weights import opening, source, store
from unclip.words import Reader, Words

WORDS = json.dumps(
    {
        "format": 1,
        "things": {"red square": ["square"], "blue disc": []},
        "styles": [["a drawing of"]],
        "grammar": {"colors": ["red", "blue"], "others": ["a", "an", "the", "at"]},
        "tags": ["shape"],
        "readings": {"synonym": {"red square": ["ruddy tile"], "blue disc": ["orb"]}, "phrase": {"at": ["in"]}},
        "spelled": [],
        "credits": ["é, nobody"],
    },
    ensure_ascii=False,
)
KNOWN, OTHER = "a blue disc", "an orb"


@pytest.fixture(scope="module")
def worded(micro_bundle, tmp_path_factory) -> Path:
    """The micro model with words."""
    folder = tmp_path_factory.mktemp("bundles") / "worded"
    source.save(opening.open_bundle(micro_bundle), folder, name="worded")
    store.put_words(folder, WORDS)
    return folder


@pytest.fixture(scope="module")
def model(worded) -> pipeline.UnCLIP:
    loaded = pipeline.load(worded, device="cpu", precision="fp32")
    assert isinstance(loaded, pipeline.UnCLIP)
    return loaded


@pytest.fixture
def run(worded, tmp_path, capsys, monkeypatch):
    """Runs a verb on that model in an empty folder; gives the exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(verb: str, *arguments: str, few=("--size", "32", "--steps", "1", "--device", "cpu")):
        asked = [*arguments, *few, "--model", str(worded)] if verb not in ("info", "models") else arguments
        return main([verb, *asked]), *capsys.readouterr()

    return call


def pixels(image: Image.Image) -> bytes:
    return np.asarray(image).tobytes()


def picture() -> Image.Image:
    made = Image.new("RGB", (32, 32), (200, 30, 30))
    made.paste((20, 30, 200), (4, 4, 20, 18))
    return made


FEW = {"size": 32, "options": Options(steps=1, prior_steps=1)}
AS_TYPED = {"size": 32, "options": Options(steps=1, prior_steps=1, as_typed=True)}


def test_what_is_read_is_painted_and_kept_beside_the_prompt(model):
    (read,) = model.generate(OTHER, seed=3, **FEW)
    (known,) = model.generate(KNOWN, seed=3, **FEW)
    (typed,) = model.generate(OTHER, seed=3, **AS_TYPED)
    assert pixels(read) == pixels(known) != pixels(typed)
    assert read.info["unclip"]["prompt"] == OTHER
    assert read.info["unclip"]["read"] == KNOWN
    assert "read" not in {**known.info["unclip"], **typed.info["unclip"]}
    assert typed.info["unclip"]["as_typed"] is True


def test_what_is_cut_is_told_of_what_the_model_is_given(model):
    typed = AS_TYPED["options"]
    prompt = next(prompt for prompt in ("a ruddy tile " * count for count in range(1, 60)) if model.cut([prompt], typed))
    assert model.cut([prompt]) == []  # read as squares it takes fewer tokens


def test_a_model_without_words_paints_what_it_is_given(painter, model):
    assert painter.words is None
    (plain,) = painter.generate(OTHER, seed=3, **FEW)
    (typed,) = model.generate(OTHER, seed=3, **AS_TYPED)
    assert pixels(plain) == pixels(typed)
    assert "read" not in plain.info["unclip"]


def mask() -> Image.Image:
    made = Image.new("L", (32, 32))
    made.paste(255, (4, 4, 20, 18))
    return made


TASKS = {
    "image_to_image": lambda model, prompt, how: image_to_image(model, picture(), prompt, **how)[0],
    "inpaint": lambda model, prompt, how: inpaint(model, picture(), mask(), prompt, n=1, **how)[0],
    "outpaint": lambda model, prompt, how: outpaint(model, picture(), Sides(left=8), prompt, options=how["options"])[0],
    "interpolate": lambda model, prompt, how: interpolate(model, [picture(), prompt], frames=2, **how)[1],
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_reads_its_prompt(model, task):
    read, known, typed = (TASKS[task](model, *asked) for asked in ((OTHER, FEW), (KNOWN, FEW), (OTHER, AS_TYPED)))
    assert pixels(read) == pixels(known) != pixels(typed)
    told = read.info["unclip"]["parents"][1] if task == "interpolate" else read.info["unclip"]
    assert (told["prompt"], told["read"]) == (OTHER, KNOWN)


def test_text_diff_reads_both_captions(model):
    one, other = (text_diff(model, picture(), "a ruddy tile", new, thetas=[0.3], **FEW)[0] for new in (OTHER, KNOWN))
    assert pixels(one) == pixels(other)
    told = one.info["unclip"]
    assert (told["old"], told["old_read"], told["new"], told["new_read"]) == ("a ruddy tile", "a red square", OTHER, KNOWN)
    with pytest.raises(RequestError, match="are the same to worded"):
        text_diff(model, picture(), OTHER, KNOWN, **FEW)


def test_the_command_line_says_what_it_reads_and_what_nobody_knows(run):
    code, out, err = run("generate", OTHER, "a zorblax", KNOWN, "--candidates", "1")
    assert code == 0
    assert err == "orb: read as blue disc\nzorblax: not known to worded, painted all the same\n"
    assert len(out.splitlines()) == 3
    code, _, err = run("generate", OTHER, "--candidates", "1", "--as-typed")
    assert (code, err) == (0, "")


def test_json_has_it_too(run):
    answer = json.loads(run("generate", OTHER, "a zorblax", "--candidates", "1", "--json")[1])
    first, second = answer["read"]
    assert (first["prompt"], first["read"], first["unknown"]) == (OTHER, KNOWN, [])
    assert first["words"] == [{"word": "orb", "known": "blue disc", "source": "synonym"}]
    assert second["unknown"] == ["zorblax"]
    assert "read" not in json.loads(run("generate", OTHER, "--candidates", "1", "--json", "--as-typed")[1])


def test_the_best_of_many_is_chosen_by_what_was_read(run):
    read = json.loads(run("generate", OTHER, "--best-of", "4", "--candidates", "1", "--json")[1])
    known = json.loads(run("generate", KNOWN, "--best-of", "4", "--candidates", "1", "--json")[1])
    assert (read["seeds"], read["scores"]) == (known["seeds"], known["scores"])
    assert read["settings"][0]["prompt"] == OTHER


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("generate", [OTHER, "--candidates", "1"]),
        ("generate", [OTHER, "--candidates", "1", "--as-typed"]),
        ("img2img", ["in.png", "--prompt", OTHER, "-n", "1"]),
        ("interpolate", ["in.png", OTHER, "--frames", "2"]),
        ("text-diff", ["in.png", "--old", KNOWN, "--new", "a ruddy tile", "--theta", "0.3"]),
    ],
)
def test_the_command_of_info_makes_the_same_file_again(run, worded, verb, arguments):
    picture().save("in.png")
    first = run(verb, *arguments, "-o", "one")[1].splitlines()[-1]
    again = command(read_settings(first))
    words = shlex.split(again.replace("--model worded", f"--model {worded}"))[1:]
    assert "no option says" not in run("info", first)[1]
    assert main([*words, "-o", "two", *(["--size", "32"] if "--size" not in words else []), "--device", "cpu"]) == 0
    second = Path("two") / Path(first).name
    assert Path(first).read_bytes() == second.read_bytes()


def test_info_says_what_an_end_was_read_as(run):
    picture().save("in.png")
    last = run("interpolate", "in.png", OTHER, "--frames", "2", "-o", "out")[1].splitlines()[-1]
    assert f"of {OTHER!r}, read as {KNOWN!r}" in run("info", last)[1]


def test_models_show_says_what_the_model_knows(run, worded, micro_bundle):
    code, out, _ = run("models", "show", str(worded))
    assert code == 0
    assert "knows: 2 things by 3 names; 3 other words are read as these" in out
    assert "styles: a drawing of\ncolors: red, blue\n" in out
    assert json.loads(run("models", "show", str(worded), "--json")[1])["words"]["things"] == 2
    assert "words" not in json.loads(run("models", "show", str(micro_bundle), "--json")[1])
    assert run("models", "show", str(worded), "--words")[1].splitlines()[0] == "red square, square (ruddy tile)"
    assert json.loads(run("models", "show", str(worded), "--words", "--json")[1])["things"]["blue disc"] == []


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        (["orbs"], "orbs: read as blue disc (another word for it, WordNet)"),
        (["Ruddy", "tile"], "Ruddy tile: read as red square (another word for it, WordNet)"),
        (["square"], "square: known (red square, square)\nsynonym: ruddy tile"),
        (["red"], "red: known (red)"),
        (["shape"], "shape: no name, but met inside of names or behind them"),
        (["zorblax"], "zorblax: not known to worded"),
    ],
)
def test_a_word_is_looked_up(run, worded, phrase, said):
    assert run("models", "show", str(worded), "--words", *phrase) == (0, f"{said}\n", "")
    assert json.loads(run("models", "show", str(worded), *phrase, "--json")[1])["word"] == " ".join(phrase)


def test_a_model_without_words_says_so(run, micro_bundle):
    code, out, err = run("models", "show", str(micro_bundle), "--words")
    assert (code, out) == (2, "")
    assert err == "error: tiny comes without a list of what it knows\n"


def test_words_are_put_into_a_bundle_and_taken_along(run, worded, micro_bundle, tmp_path):
    Path("words.json").write_text(WORDS, encoding="utf-8")
    copy = source.save(opening.open_bundle(micro_bundle), tmp_path / "copy", name="copy")
    before = store.read_manifest(copy)
    assert run("models", "words", str(copy), "words.json")[0] == 0
    after = store.read_manifest(copy)
    assert (after.parts, after.files.keys() - before.files.keys()) == (before.parts, {"words.json"})
    store.put_words(copy, WORDS)
    store.verify_bundle(copy)
    assert store.read_words(source.save(opening.open_bundle(copy), tmp_path / "next", name="next")) == WORDS
    based = pack([], tmp_path / "based", name="b", version="1", card="", base=worded)
    assert store.read_words(based) == WORDS
    assert store.read_words(micro_bundle) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "the file is torn, copy it again"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"orb", b"bro")), "has the sha256"),
        (lambda path: path.unlink(), "cannot read"),
        (lambda path: store.put_words(path.parent, "[1]"), "words.json: "),
        (lambda path: store.put_words(path.parent, "{"), "words.json is not JSON"),
        (lambda path: store.put_words(path.parent, WORDS.replace('"format": 1', '"format": 7')), "words.json: format = 7"),
        (lambda path: store.put_words(path.parent, WORDS.replace('"blue disc": ["orb', '"disk": ["orb')), "words as 'disk'"),
    ],
)
def test_torn_and_foreign_words_are_one_line(run, micro_bundle, tmp_path, damage, said):
    folder = source.save(opening.open_bundle(micro_bundle), tmp_path / "copy", name="copy")
    store.put_words(folder, WORDS)
    damage(folder / "words.json")
    with pytest.raises(WeightsError) as error:
        pipeline.load(folder, device="cpu")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    code, out, err = run("models", "show", str(folder))
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}'])
def test_words_that_are_none_are_not_put_into_a_bundle(run, worded, text):
    Path("words.json").write_text(text, encoding="utf-8")
    before = (worded / "unclip.json").read_bytes()
    code, out, err = run("models", "words", str(worded), "words.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (worded / "unclip.json").read_bytes() == before
    assert run("models", "words", str(worded), "gone.json")[2].startswith("error: cannot read the words gone.json")


def test_the_shipped_model_reads_what_people_say():
    shipped = opening.open_model("icons")
    reader = Reader(Words.of(shipped.words() or "", where="icons"))
    said = {"a flat icon of a kitty": "a flat icon of a cat", "an automobile": "an automobile", "a zorblax": "a zorblax"}
    said |= {"a 3d render of a furious face": "a 3d render of an enraged face", "a tangerin": "a tangerine"}
    assert {typed: reader.read(typed).text for typed in said} == said
    assert len(shipped.words() or "") < 200_000
