"""The data that a bundle was trained on, opened again and split as it was then."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import console
from ..bundle.format import DESCRIPTION, Description, read_description
from ..bundle.predict import load
from ..data.items import Source
from ..data.sources import NAMED, open_source
from ..data.splits import TrainTest, arrange
from ..data.store import ImageStore, typical_short_side
from ..errors import BundleError, DataError, ThawnetError, UsageError, first_line
from ..recipe import Recipe, TrainOptions, parse_recipe
from ..report.finished import read_finished
from .exporting import squares_of
from .feeds import Batch
from .machine import choose_device, decide
from .outcome import LOG, RESULT, content_of, toml
from .pretrained import kept, pretrained_features
from .ranks import ALONE
from .reporting import Material
from .setup import fit_input, open_images, open_parts


@dataclass(frozen=True)
class Reopened:
    """The data as a run had it: recipe, source, its lists, what trained and what validated."""

    recipe: Recipe
    source: Source
    lists: TrainTest
    train: ImageStore
    val: ImageStore
    side: int

    def test(self) -> ImageStore:
        """Return the images of the test part; where it validated, these are `val`."""
        if self.recipe.validate_on == "test":
            return self.val
        if self.lists.test is None:
            raise DataError(f"the test part of '{self.source.name}' is gone; bring it back")
        return open_images("test", self.lists.test(), self.side, TrainOptions())


def reopen(description: Description, data: str | None, data_dir: Path | None) -> Reopened:
    """Open the data that trained the network of a bundle; its test part stays closed.

    data, data_dir: as `thawnet train` takes them; without them, where the run found its data, and
    else what model.json names, if that is a data set known by name.
    Raises UsageError when DATA has to be given, DataError when it is not what the network was
    trained on, BundleError when the bundle does not say what that was.
    """
    told = _told(description)
    if data is None and data_dir is None:
        data, data_dir = _opened_from(description)
    if data is None:
        if told.name not in NAMED:
            raise UsageError(
                f"--data is missing: '{description.path}' was trained on '{told.name}', which is "
                "no data set that thawnet knows by name, and is not where the run found it; give "
                "its path"
            )
        data = told.name
    source = open_source(data, data_dir, console.progress, console.say)
    lists = arrange(source, told.recipe.split_seed, told.own_test)
    asked = TrainOptions(data=data, data_dir=data_dir)
    if lists.fingerprint == told.everything:
        side = description.meaning.preprocess.side
        train, val = open_parts(told.recipe, asked, source, lists, side)
        held_out = told.recipe.validate_on == "validation"
        if not held_out or content_of(val, source.classes) == told.validation:
            return Reopened(told.recipe, source, lists, train, val, side)
    raise DataError(
        f"--data '{data}' is not what '{description.path}' was trained on ('{told.name}'): images "
        "were added, removed or changed, or lie in another order; give it as it was then"
    )


def _opened_from(description: Description) -> tuple[str | None, Path | None]:
    """Return DATA and its folder as the run of a bundle was given them, if they are there still."""
    try:
        result = json.loads((description.path.parent / RESULT).read_text(encoding="utf-8"))
        told = result["opened_from"]
        data, folder = str(told["data"]), told["data_dir"] and Path(told["data_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    there = (folder or Path(data)).exists() or (folder is None and data in NAMED)
    return (data, folder) if there else (None, None)


def reopen_held_out(
    description: Description, data: str | None, data_dir: Path | None
) -> tuple[ImageStore, ImageStore]:
    """Return the images that trained the network of a bundle, and those that validated it.

    As `reopen`; also raises UsageError when nothing was held out but the test part.
    """
    if _told(description).recipe.validate_on == "test":
        raise UsageError(
            f"'{description.path}' was trained by a recipe that validates on the test part and "
            "holds no images out to try an int8 network on; train with another recipe"
        )
    found = reopen(description, data, data_dir)
    return found.train, found.val


@dataclass(frozen=True)
class _Told:
    """What model.json says of the data: its name, the names of its content, who split it.

    own_test: whether it came with a test part, None where that is not told.
    """

    name: str
    everything: str
    validation: str
    own_test: bool | None
    recipe: Recipe


def _told(description: Description) -> _Told:
    file = description.path / DESCRIPTION
    try:
        recipe = parse_recipe(toml(description.facts["recipe"]), str(file))
        facts = description.facts["data"]
        name, everything = str(facts["name"]), str(facts["fingerprint"])
        validation = str(facts.get("validation_fingerprint"))
        own_test = facts.get("own_test")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"'{file}' does not say what the network was trained on and how ({error!r}); "
            "give the run or bundle that thawnet train wrote"
        ) from error
    return _Told(name, everything, validation, own_test, recipe)


def reopen_material(folder: Path, data: str | None, data_dir: Path | None) -> Material:
    """Return what the report of a finished run is made of, found again.

    data, data_dir: as for `reopen`, which see for what is raised. The network's logits are computed
    anew, by its ONNX model.
    """
    finished = read_finished(folder)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    history = [json.loads(line) for line in (folder / LOG).read_text("utf-8").splitlines()]
    description = read_description(folder)
    found = reopen(description, data, data_dir)
    measured = found.test() if finished.part == "test" else found.val
    if content_of(measured, found.source.classes) != finished.content:
        raise DataError(
            f"the {finished.part} part of '{found.source.name}' is not what '{folder}' was "
            "measured on: images were added, removed or changed; give it as it was then"
        )
    model = load(folder)
    squares = squares_of(measured, np.arange(len(measured)), model.preprocess.crop)
    return Material(
        folder=folder,
        result=result,
        history=history,
        recipe=found.recipe,
        source=found.source,
        train=found.train,
        part=finished.part,
        measured=measured,
        logits=model.all_logits(squares),
        features=_features(found),
    )


def _features(found: Reopened) -> Batch | None:
    """Return the frozen network's features of the training images, None where they can not be."""
    recipe = found.recipe
    machine = decide(choose_device("auto"), recipe.precision, "no")
    try:
        recipe, weights, spec = fit_input(recipe, typical_short_side(found.lists.train))
    except ThawnetError as error:
        console.say(f"the pretrained weights are not at hand ({first_line(error)})")
        return None
    feed_of = pretrained_features(recipe, found.source, weights, spec, machine, ALONE)
    return kept(feed_of(found.train))
