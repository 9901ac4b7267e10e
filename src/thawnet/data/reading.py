"""How DATA is read where its form alone leaves more than one reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """How to read DATA whose columns, classes or files cannot be guessed."""

    images: Path | None = None
    """The folder that a CSV's names are looked for in. Default: the one that the CSV lies in."""
    image_column: str | None = None
    """The column of a CSV or a parquet file that names, or holds, the images."""
    label_column: str | None = None
    """Its column of classes."""
    labels_from_names: bool = False
    """Take the classes from the files' names, as cat of cat.0.jpg and cat_12.jpg."""
    class_names: Path | None = None
    """Names to give the classes: a text file, a line for each, as in 'n01440764 tench', or JSON."""

    def resolved(self) -> Reading:
        """Return the same with paths that hold from anywhere."""
        images, names = (path and path.resolve() for path in (self.images, self.class_names))
        return replace(self, images=images, class_names=names)


AS_IT_IS = Reading()
