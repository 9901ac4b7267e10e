"""The images of a run's parts: decoded, split, and fingerprinted by their content."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core import console
from ..core.errors import DataError
from ..core.files import fingerprint
from ..core.memory import available_cores
from ..core.text import counted
from ..data.items import Items, Source, tied
from ..data.splits import TrainTest, divide, first_of_each
from ..data.store import ImageStore, open_store, require_every_class
from ..image.preprocess import Reduction
from ..recipe import Recipe


def open_parts(
    recipe: Recipe, source: Source, lists: TrainTest, how: Reduction, workers: int | None = None
) -> tuple[ImageStore, ImageStore]:
    """Return the stored training and validation images.

    If they are cross-validated, these are the same. Raises DataError if there are too few images to
    validate on, or a class has none to train on.
    """
    for note in source.notes:
        console.say(note)
    images = open_images("train", lists.train, how, workers)
    require_every_class(images, lists.train, source.classes)
    part, items = "validation", lists.val
    if recipe.validate_on == "test":
        if lists.test is None:
            raise DataError(
                f"recipe '{recipe.name}' validates on the test part, which is gone; bring it back"
            )
        console.say("validating on the test part, as the reference does; it selects nothing")
        part, items = "test", lists.test()
    other: ImageStore | None = None
    if items is not None:
        other = require_some(open_images(part, items, how, workers), part)
    about = f"{source.name}: {counted(len(source.classes), 'class')}"
    enlarged = f", enlarged from {how.side} px" if how.side < recipe.size else ""
    copies = None if other is not None else copied(images, source.classes)
    if lists.folded:
        if np.bincount(images.labels[first_of_each(images.ties)]).max() < 2:
            raise DataError(
                copies
                or f"too few training images, {len(images)}: a class needs at least "
                "2, one to learn from and one to validate on"
            )
        if copies is not None:
            console.say(copies)
        console.say(
            f"{about}, {len(images):,} training images{enlarged}; so few that none is held back: "
            "each is validated by a network that did not learn from it"
        )
        return images, images
    train_images, val = divide(images, other, recipe.shares)
    if len(val) == 0:
        drawn = lists.test is not None and "test" not in source.parts
        raise DataError(
            copies
            or f"too few training images to validate on, {len(images)}; "
            f"a class needs at least {'3, of which one is held back to test' if drawn else '2'}"
        )
    if copies is not None:
        console.say(copies)
    console.say(
        f"{about}, {len(train_images):,} training and {counted(len(val), 'validation image')}"
        f"{enlarged}"
    )
    return train_images, val


def copied(images: ImageStore, classes: Sequence[str]) -> str | None:
    """Return a message about classes whose images are all copies of one, or None."""
    counts = np.bincount(images.labels, minlength=len(classes))
    pairs = np.unique(np.column_stack([images.labels, tied(images.hashes, None)]), axis=0)
    different = np.bincount(pairs[:, 0], minlength=len(classes))
    labels = np.flatnonzero((counts > 1) & (different == 1)).tolist()
    if not labels:
        return None
    others = f", and so are those of {len(labels) - 1:,} more" if len(labels) > 1 else ""
    return (
        f"the {counts[labels[0]]:,} training images of class '{classes[labels[0]]}' are copies of "
        f"one{others}: none is left to validate on; give the class other images, or remove it"
    )


def require_some(store: ImageStore, part: str) -> ImageStore:
    """Return the store of a part. Raises DataError if none of its images could be read."""
    if not len(store):
        name, why = store.broken[0]
        raise DataError(
            f"none of the {len(store.broken):,} {part} images can be read; the first that failed: "
            f"'{name}' ({why}); replace them, or remove the {part} part"
        )
    return store


def open_images(part: str, items: Items, how: Reduction, workers: int | None = None) -> ImageStore:
    """Open the store of one part, building it with a progress bar, and list unreadable images.

    workers: number of decoding threads; by default one per core.
    """
    with console.progress(f"decoding {part}", len(items)) as advance:
        store = open_store(items, how, advance, workers or available_cores(), console.say)
    if store.broken:
        console.say(
            f"{len(store.broken):,} of {len(items):,} {part} images cannot be read, left out:"
        )
        for name, reason in store.broken[:5]:
            console.say(f"  {name}: {reason}")
        if len(store.broken) > 5:
            console.say("  ... all are listed in broken.json in the run folder")
    return store


def content_of(images: ImageStore, classes: Sequence[str]) -> str:
    """Return a fingerprint of some images and their classes that ignores their order."""
    names = [classes[label] for label in images.labels]
    hashes = [value.tobytes().hex() for value in images.hashes]
    return fingerprint(sorted(zip(hashes, names, strict=True)))
