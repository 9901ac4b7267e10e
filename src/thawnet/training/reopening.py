"""The data that a bundle was trained on, opened again and split as it was then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import console
from ..bundle.format import DESCRIPTION, Description
from ..data.sources import NAMED, open_source
from ..data.splits import arrange
from ..data.store import ImageStore
from ..errors import BundleError, DataError, UsageError
from ..recipe import Recipe, TrainOptions, parse_recipe
from .outcome import content_of, toml
from .setup import open_parts


@dataclass(frozen=True)
class _Told:
    """What model.json says of the data: its name, the names of its content, who split it."""

    name: str
    everything: str
    validation: str
    recipe: Recipe


def reopen(
    description: Description, data: str | None, data_dir: Path | None
) -> tuple[ImageStore, ImageStore]:
    """Return the images that trained the network of a bundle, and those that validated it.

    data, data_dir: as `thawnet train` takes them; without `data`, what model.json names, if that is
    a data set known by name. The test part stays closed.
    Raises UsageError when DATA has to be given or nothing was held out, DataError when it is not
    what the network was trained on, BundleError when the bundle does not say what that was.
    """
    told = _told(description)
    if data is None:
        if told.name not in NAMED:
            raise UsageError(
                f"--data is missing: '{description.path}' was trained on '{told.name}', which is "
                "no data set that thawnet knows by name; give its path"
            )
        data = told.name
    source = open_source(data, data_dir, console.progress, console.say)
    lists = arrange(source, told.recipe.split_seed)
    asked = TrainOptions(data=data, data_dir=data_dir)
    if lists.fingerprint == told.everything:
        side = description.meaning.preprocess.side
        train, val = open_parts(told.recipe, asked, source, lists, side)
        if content_of(val, source.classes) == told.validation:
            return train, val
    raise DataError(
        f"--data '{data}' is not what '{description.path}' was trained on ('{told.name}'): images "
        "were added, removed or changed, or lie in another order; give it as it was then"
    )


def _told(description: Description) -> _Told:
    file = description.path / DESCRIPTION
    try:
        recipe = parse_recipe(toml(description.facts["recipe"]), str(file))
        facts = description.facts["data"]
        name, everything = str(facts["name"]), str(facts["fingerprint"])
        validation = str(facts.get("validation_fingerprint"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"'{file}' does not say what the network was trained on and how ({error!r}); "
            "give the run or bundle that thawnet train wrote"
        ) from error
    if recipe.validate_on == "test":
        raise UsageError(
            f"'{description.path}' was trained by recipe '{recipe.name}', which validates on the "
            "test part and holds no images out to try an int8 network on; train with another recipe"
        )
    return _Told(name, everything, validation, recipe)
