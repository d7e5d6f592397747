"""Recipes: overrides are read as yaml, and each mistake is one line that names the key."""

import pytest
from pydantic import ValidationError, model_validator

from unclip.config import Config, apply_overrides, read_yaml
from unclip.errors import ConfigError


class Optim(Config):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)


class Recipe(Config):
    steps: int
    fused: bool = True
    name: str = "a"
    optim: Optim = Optim()

    @model_validator(mode="after")
    def _possible(self):
        if self.steps > 100:
            raise ValueError("Steps must not pass 100")
        return self


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("steps: 5\noptim:\n  lr: 0.1\n", encoding="utf-8")
    return path


def test_overrides_are_yaml_values_on_their_paths(recipe):
    found = Recipe.load(recipe, ["optim.lr=1e-4", "fused=false", "optim.betas=[0.5, 0.6]", "name=x=y"])
    assert found == Recipe(steps=5, fused=False, name="x=y", optim=Optim(lr=1e-4, betas=(0.5, 0.6)))


def test_overrides_leave_the_given_values_alone():
    values = {"optim": {"lr": 1}}
    assert apply_overrides(values, ["optim.lr=2", "new.key=3"]) == {"optim": {"lr": 2}, "new": {"key": 3}}
    assert values == {"optim": {"lr": 1}}


def test_a_config_is_frozen(recipe):
    with pytest.raises(ValidationError, match="frozen"):
        Recipe.load(recipe).steps = 6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stepz=1", "unknown key stepz"),
        ("optim.lrr=1", "unknown key optim.lrr"),
        ("optim.lr=fast", "optim.lr = 'fast'"),
        ("steps=1.5", "steps = 1.5"),
        ("optim=3", "optim = 3"),
        ("optim.betas=[1]", "key optim.betas.1 is missing"),
        ("steps=101", "teps must not pass 100"),
        ("steps", "not of the form key.path=value"),
        ("=3", "not of the form key.path=value"),
        ("optim..lr=3", "not of the form key.path=value"),
        ("steps.deep=1", "steps is a value, not a group"),
        ("name=[1", "not a yaml value"),
    ],
)
def test_each_mistake_is_one_line_that_names_it(recipe, override, words):
    with pytest.raises(ConfigError) as error:
        Recipe.load(recipe, [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named_with_the_file(tmp_path):
    (tmp_path / "r.yaml").write_text("fused: true\n")
    with pytest.raises(ConfigError, match=r"r\.yaml: the key steps is missing"):
        Recipe.load(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the recipe"),
        (b"a: [1", "is not yaml"),
        (b"- 1\n", "holds list"),
        (b"", "holds NoneType"),
        (b"\xff\xfe\xfa", "not utf-8"),
    ],
    ids=["missing", "broken", "list", "empty", "bytes"],
)
def test_a_file_that_holds_no_mapping_is_one_line(tmp_path, content, words):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def test_yaml_tags_that_make_objects_are_refused(tmp_path):
    (tmp_path / "r.yaml").write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match="is not yaml"):
        read_yaml(tmp_path / "r.yaml")
