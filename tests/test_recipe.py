"""Recipes: what is written is what is meant, and a slip is answered with the near name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from thawnet.core.errors import RecipeError
from thawnet.recipe import PRESETS, TrainOptions, load_recipe, parse_recipe, resolve

SMALLEST = """
name = "own"
[head]
train_from = "head"
epochs = 1
lr = 0.001
[finetune]
train_from = "100"
epochs = 1
lr = 0.001
"""


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_being_written_and_read_back(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_recipe(tomli_w.dumps(dataclasses.asdict(recipe)), name) == recipe


@pytest.mark.parametrize("name", PRESETS)
def test_preset_says_on_top_what_to_expect_of_it(name: str) -> None:
    from importlib import resources

    text = (resources.files("thawnet.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    heading = [line for line in text.splitlines() if line.startswith("#")]
    assert heading[0].startswith(f"# {name}: ")
    assert any("accuracy" in line for line in heading)


def test_seed_is_the_reference_to_the_letter() -> None:
    seed = load_recipe("seed")
    assert (seed.backbone, seed.size, seed.validate_on) == ("mobilenetv2_100", 96, "test")
    assert seed.weights == "keras"
    assert (seed.augment.flip, seed.augment.rotate, seed.enlarge) == (True, 36.0, "bilinear")
    for phase, start, rate in ((seed.head, "head", 1e-3), (seed.finetune, "100", 1e-5)):
        assert (phase.train_from, phase.lr, phase.epochs, phase.batch_size) == (start, rate, 10, 64)
        assert (phase.optimizer, phase.epsilon) == ("keras-adam", 1e-7)
        assert phase.schedule == "constant"
        assert (phase.label_smoothing, phase.weight_decay, phase.ema, phase.views) == (0, 0, 0, 0)
        assert phase.drop_last is False
    assert seed.finetune.batch_norm == "train"
    assert seed.finetune.bn_momentum == pytest.approx(1 - 0.999)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("epochs = 1", "epoch = 1"), "unknown field 'head.epoch'; the nearest are 'epochs'"),
        (("[head]", "siez = 64\n[head]"), "unknown field 'siez'; the nearest are 'size'"),
        (("lr = 0.001", "lr = 'fast'"), "'head.lr' must be a number; received str 'fast'"),
        (("epochs = 1", "epochs = 1.5"), "'head.epochs' must be a whole number"),
        (("epochs = 1", "epochs = true"), "'head.epochs' must be a whole number"),
        (("epochs = 1", "epochs = 0"), "head.epochs = 0: must be at least 1"),
        (("lr = 0.001", "lr = nan"), "head.lr = nan"),
        (('name = "own"\n', ""), "field 'name' is missing"),
        (("[head]", "augment = 3\n[head]"), "'augment' must be a table"),
        (("epochs = 1", "optimizer = 'sgd'\nepochs = 1"), "must be 'adamw' or 'keras-adam'"),
        (("[head]", "[head"), "not valid TOML"),
    ],
)
def test_misspelt_or_wrong_field_is_one_sentence_that_names_it(
    change: tuple[str, str], told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(SMALLEST.replace(*change, 1), "mine.toml")
    message = str(caught.value)
    assert message.startswith("recipe 'mine.toml': ")
    assert "\n" not in message
    assert told in message


def test_unknown_recipe_suggests_the_near_one() -> None:
    with pytest.raises(RecipeError, match="did you mean 'quick'"):
        load_recipe("quik")


def test_missing_recipe_file_is_one_sentence() -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe("nowhere.toml")


def test_flags_win_over_the_recipe_and_explicit_epochs_are_kept() -> None:
    options = TrainOptions(epochs=(2, 3), lr=(0.1, 0.2), train_from="blocks.5", seed=7, size=64)
    recipe = resolve(load_recipe("quick"), options)
    assert (recipe.head.epochs, recipe.finetune.epochs) == (2, 3)
    assert (recipe.head.min_steps, recipe.finetune.min_steps) == (0, 0)
    assert (recipe.head.lr, recipe.finetune.lr) == (0.1, 0.2)
    assert (recipe.head.train_from, recipe.finetune.train_from) == ("head", "blocks.5")
    assert (recipe.seed, recipe.size) == (7, 64)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"data": 5}, "'data' must be text in quotes; received int 5"),
        ({"out": 5}, "'out' must be a path; received int 5"),
        ({"lr": (0.1,)}, r"'lr' must be 2 values; received tuple \(0\.1,\)"),
        ({"epochs": (1, 1.5)}, "'epochs' must be a whole number; received float 1.5"),
        ({"balance": 1}, "'balance' must be true or false; received int 1"),
        (
            {"device": "gpu"},
            "'device' must be 'auto' or 'cpu' or 'cuda' or 'mps'; received str 'gpu'",
        ),
        ({"precision": "half"}, "'precision' must be 'auto' or 'float32' or 'bfloat16'"),
    ],
)
def test_option_of_the_wrong_kind_is_one_sentence(given: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        TrainOptions(**given)


def test_a_path_may_be_text_and_a_pair_a_list() -> None:
    options = TrainOptions(out="run", lr=[1, 0.1], size=None, workers=2)  # type: ignore[arg-type]
    assert options == TrainOptions(out=Path("run"), lr=(1.0, 0.1), workers=2)


def test_text_may_be_a_path_and_a_number_one_of_numpy() -> None:
    given: dict[str, Any] = {"data": Path("photos"), "lr": (np.float32(0.5), np.float64(0.1))}
    options = TrainOptions(**given, seed=np.int64(3))  # type: ignore[arg-type]
    assert options == TrainOptions(data="photos", lr=(0.5, 0.1), seed=3)
    assert [type(value) for value in (options.data, options.seed)] == [str, int]


@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text, "fuzz")


@pytest.mark.parametrize("flag", ["test_share", "val_share"])
def test_share_of_nothing_is_refused_not_ignored(flag: str) -> None:
    with pytest.raises(RecipeError, match=f"--{flag.replace('_', '-')} 0: give a share above 0"):
        resolve(load_recipe("quick"), TrainOptions(**{flag: 0.0}))  # type: ignore[arg-type]
