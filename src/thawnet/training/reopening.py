"""The data that a bundle was trained on, opened again and split as before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..bundle.format import DESCRIPTION, Description
from ..core import console
from ..core.errors import BundleError, DataError, UsageError
from ..core.typed import typed
from ..data.items import Source
from ..data.reading import AS_IT_IS, Reading
from ..data.sources.open import NAMED, is_named, open_source
from ..data.splits import TrainTest, arrange
from ..data.store import ImageStore
from ..image.preprocess import Reduction
from ..metrics.result import DataFacts, OpenedFrom, how_opened
from ..recipe import Recipe, parse_recipe, to_toml
from .parts import content_of, open_images, open_parts


@dataclass(frozen=True)
class TrainingData:
    """The data of a run, split as the run split it."""

    recipe: Recipe
    source: Source
    lists: TrainTest
    train: ImageStore
    val: ImageStore
    reduction: Reduction
    """How images are reduced for the store."""

    def test(self) -> ImageStore:
        """Return the images of the test part; if it validated, these are `val`."""
        if self.recipe.validate_on == "test":
            return self.val
        if self.lists.test is None:
            raise DataError(f"the test part of '{self.source.name}' is gone; bring it back")
        return open_images("test", self.lists.test(), self.reduction)


def reopen(description: Description, data: str | None, data_dir: Path | None) -> TrainingData:
    """Open the data that a bundle's network was trained on; its test part stays closed.

    data, data_dir: as for `thawnet train`. By default, the data is opened where the run found it,
    else by name if model.json names a known data set. `data_dir` alone replaces the folder in which
    the run found its data. The run's reading options are used.
    Raises UsageError if DATA has to be given, DataError if it is not what the network was trained
    on, BundleError if the bundle does not say what that was.
    """
    recipe, facts = _facts(description)
    opened = how_opened(description.path)
    if data is None:
        data, data_dir = _recorded(description, facts.name, data_dir, opened)
    asked = AS_IT_IS if opened is None else typed(Reading, opened.reading, "reading", strict=False)
    source = open_source(data, data_dir, console.progress, console.say, asked)
    lists = arrange(source, recipe.shares, facts.own_test)
    if lists.fingerprint == facts.fingerprint:
        reduction = description.meaning.preprocess.reduction
        train, val = open_parts(recipe, source, lists, reduction)
        sure = recipe.validate_on == "test" or lists.folded
        if sure or content_of(val, source.classes) == facts.content.get("validation"):
            return TrainingData(recipe, source, lists, train, val, reduction)
    raise DataError(
        f"--data '{data}' is not what '{description.path}' was trained on ('{facts.name}'): images "
        "were added, removed or changed, or lie in another order; give it as it was then"
    )


def reopen_train_val(
    description: Description, data: str | None, data_dir: Path | None
) -> tuple[ImageStore, ImageStore]:
    """Return the training and validation images of a bundle's network.

    As `reopen`; also raises UsageError if only the test part was held out.
    """
    recipe, _ = _facts(description)
    if recipe.validate_on == "test":
        raise UsageError(
            f"'{description.path}' was trained by a recipe that validates on the test part and "
            "holds no images out to try an int8 network on; train with another recipe"
        )
    reopened = reopen(description, data, data_dir)
    return reopened.train, reopened.val


def _recorded(
    description: Description, name: str, data_dir: Path | None, opened: OpenedFrom | None
) -> tuple[str, Path | None]:
    """Return DATA and its folder as a run was given them. name: of the data.

    Raises UsageError if the data is no longer there.
    """
    where = ""
    if opened is not None and (data_dir is None or opened.data_dir is not None):
        folder = data_dir or (None if opened.data_dir is None else Path(opened.data_dir))
        if folder is None and is_named(opened.data):
            return opened.data, None
        path = Path() if opened.data in NAMED else Path(opened.data)
        path = path if folder is None else folder / path
        if path.exists():
            return opened.data, folder
        where = f", which is not where the run found it, '{path}'"
    if name in NAMED:
        return name, data_dir
    raise UsageError(
        f"--data is missing: '{description.path}' was trained on '{name}'{where}; give its path"
    )


def _facts(description: Description) -> tuple[Recipe, DataFacts]:
    """Return the recipe and the facts about the data from model.json."""
    file = description.path / DESCRIPTION
    try:
        recipe = parse_recipe(to_toml(description.facts["recipe"]), str(file))
        facts = description.facts["data"]
        data = DataFacts(
            name=str(facts["name"]),
            fingerprint=str(facts["fingerprint"]),
            own_test=bool(facts.get("own_test")),
            content=dict(facts.get("content", {})),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"'{file}' does not say what the network was trained on and how ({error!r}); "
            "give the run or bundle that thawnet train wrote"
        ) from error
    return recipe, data
