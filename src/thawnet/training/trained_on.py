"""The data that a bundle was trained on, opened again and split as it was then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..bundle.format import DESCRIPTION, Description
from ..core import console
from ..core.errors import BundleError, DataError, RunError, UsageError
from ..data.items import Source
from ..data.sources.open import NAMED, open_source
from ..data.splits import TrainTest, arrange
from ..data.store import ImageStore
from ..metrics.result import read_result
from ..recipe import Recipe, TrainOptions, parse_recipe, to_toml
from .parts import content_of, open_images, open_parts


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
        validated_on_test = told.recipe.validate_on == "test"
        if validated_on_test or content_of(val, source.classes) == told.validation:
            return Reopened(told.recipe, source, lists, train, val, side)
    raise DataError(
        f"--data '{data}' is not what '{description.path}' was trained on ('{told.name}'): images "
        "were added, removed or changed, or lie in another order; give it as it was then"
    )


def _opened_from(description: Description) -> tuple[str | None, Path | None]:
    """Return DATA and its folder as the run of a bundle was given them, if they are there still."""
    try:
        told = read_result(description.path.parent).opened_from
    except (OSError, RunError):
        told = None
    if told is None:
        return None, None
    data, folder = told.data, Path(told.data_dir) if told.data_dir else None
    there = (folder or Path(data)).exists() or (folder is None and data in NAMED)
    return (data, folder) if there else (None, None)


def reopen_train_val(
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
        recipe = parse_recipe(to_toml(description.facts["recipe"]), str(file))
        facts = description.facts["data"]
        name, everything = str(facts["name"]), str(facts["fingerprint"])
        validation = str(facts.get("content", {}).get("validation"))
        own_test = facts.get("own_test")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"'{file}' does not say what the network was trained on and how ({error!r}); "
            "give the run or bundle that thawnet train wrote"
        ) from error
    return _Told(name, everything, validation, own_test, recipe)
