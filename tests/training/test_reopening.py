"""The data of a run, opened again: the same images train and validate, or nothing does."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from thawnet.bundle.format import Description, read_description
from thawnet.core.errors import BundleError, DataError, ThawnetError, UsageError
from thawnet.data.reading import Reading
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange
from thawnet.recipe import TrainOptions, load_recipe, to_table
from thawnet.training import run
from thawnet.training.parts import content_of, open_parts
from thawnet.training.reopening import reopen, reopen_train_val


def hashes(images: Any) -> set[bytes]:
    return {value.tobytes() for value in images.hashes}


def test_images_that_trained_and_validated_come_back_and_others_are_refused(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run.train(options)
    description = read_description(outcome.folder)
    train, val = reopen_train_val(description, options.data, None)
    assert content_of(val, description.meaning.classes) == outcome.result.data.content["validation"]
    with (outcome.folder / "predictions.csv").open() as file:
        tested = {row["image"] for row in csv.DictReader(file)}
    names = set(train.names) | set(val.names)
    assert len(names) == len(train) + len(val) == 72 - len(tested)
    assert not names & tested
    assert not hashes(train) & hashes(val)

    moved = Path(shutil.copytree(options.data, "elsewhere"))
    assert reopen(description, str(moved), None).train.names == train.names
    (moved / train.names[0]).unlink()
    with pytest.raises(DataError, match=r"'elsewhere' is not what .* was trained on"):
        reopen(description, "elsewhere", None)
    assert reopen(description, None, None).train.names == train.names  # where the run found it
    with monkeypatch.context() as patch:
        patch.chdir(description.path)
        assert reopen(read_description(Path()), None, None).train.names == train.names
    Path(options.data).rename("gone")
    with pytest.raises(
        UsageError,
        match=rf"--data is missing: .* was trained on 'photos', .* '{options.data}'; give its path",
    ):
        reopen(description, None, None)


def test_data_in_a_data_dir_comes_back_from_there_or_from_the_folder_it_was_moved_to(
    options: TrainOptions,
) -> None:
    folder, name = Path(options.data).parent, Path(options.data).name
    outcome = run.train(dataclasses.replace(options, data=name, data_dir=folder))
    description = read_description(outcome.folder)
    train = reopen(description, None, None).train
    Path("moved").mkdir()
    Path(options.data).rename(Path("moved") / name)
    with pytest.raises(UsageError, match=rf"not where the run found it, '{options.data}'; give"):
        reopen(description, None, None)
    assert reopen(description, None, Path("moved")).train.names == train.names


def test_table_comes_back_by_the_columns_that_the_run_was_told(options: TrainOptions) -> None:
    images = sorted(Path(options.data).rglob("*.png"))
    names = [f"{path.parent.name}-{path.stem}" for path in images]
    rows = [f"{name},{name[0]},{name[0].upper()},x" for name in names]
    table = Path("list.csv")
    table.write_text("\n".join(["id,kind,colour,note", *rows]) + "\n")
    for path, name in zip(images, names, strict=True):
        path.rename(path.parents[1] / f"{name}.png")
    reading = Reading(images=Path(options.data))
    with pytest.raises(DataError, match="which of them holds the classes is not clear"):
        run.train(dataclasses.replace(options, data=str(table), reading=reading))
    reading = dataclasses.replace(reading, label_column="colour")
    outcome = run.train(dataclasses.replace(options, data=str(table), reading=reading))
    back = reopen(read_description(outcome.folder), None, None)
    assert back.source.classes == ("A", "B", "C")
    assert back.source.notes[0].startswith("'list.csv': images from column 'id', classes from 'col")


def told_of(bundle: Path, **changes: Any) -> Description:
    """Return the description of a bundle as if `quick` had trained it on digits."""
    recipe = load_recipe("quick")
    source = open_source("digits")
    lists = arrange(source, recipe.shares)
    description = read_description(bundle)
    _, val = open_parts(recipe, source, lists, description.meaning.preprocess.reduction)
    facts = {
        "recipe": to_table(recipe),
        "data": {
            "name": "digits",
            "fingerprint": lists.fingerprint,
            "content": {"validation": content_of(val, source.classes)},
        },
    }
    return dataclasses.replace(description, facts={**facts, **changes})


def test_data_that_is_known_by_name_need_not_be_given(bundle: Path) -> None:
    train, val = reopen_train_val(told_of(bundle), None, None)
    assert 1400 < len(train) < 1500
    assert 100 < len(val) < 200


@pytest.mark.parametrize(
    ("facts", "error", "message"),
    [
        ({"recipe": {"name": "x"}}, UsageError, "field 'head' is missing"),
        ({"recipe": 7}, BundleError, "does not say what the network was trained on"),
        ({"data": None}, BundleError, "does not say what the network was trained on"),
        ({"data": {"name": "digits"}}, BundleError, "KeyError.'fingerprint'"),
        ({"data": {"name": "digits", "fingerprint": "x"}}, DataError, "'digits' is not what"),
    ],
)
def test_bundle_that_tells_too_little_is_refused_in_a_sentence(
    bundle: Path, facts: dict[str, Any], error: type[ThawnetError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        reopen(told_of(bundle, **facts), None, None)
    assert "\n" not in str(caught.value)


def test_recipe_that_validates_on_the_test_part_holds_nothing_out(bundle: Path) -> None:
    with pytest.raises(UsageError, match="validates on the test part"):
        reopen_train_val(told_of(bundle, recipe=to_table(load_recipe("seed"))), None, None)


def test_images_that_validate_must_be_the_same(bundle: Path) -> None:
    description = told_of(bundle)
    description.facts["data"]["content"]["validation"] = "another"
    with pytest.raises(DataError, match="'digits' is not what"):
        reopen(description, None, None)
