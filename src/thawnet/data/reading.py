"""How to read DATA where its form is ambiguous."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from ..core.flags import Switch, option


@dataclass(frozen=True)
class Reading:
    """How to read DATA where its columns or classes cannot be guessed."""

    images: Annotated[Path | None, option("FOLDER")] = None
    """The folder that holds the images of a CSV. Default: the CSV's own folder."""
    image_column: Annotated[str | None, option("NAME")] = None
    """The column of a CSV or parquet file that names, or holds, the images."""
    label_column: Annotated[str | None, option("NAME")] = None
    """The column of a CSV or parquet file that holds the classes."""
    labels_from_names: Switch = False
    """Take the classes from the file names: cat.0.jpg and cat_12.jpg are of class cat."""
    class_names: Annotated[Path | None, option("FILE")] = None
    """Names for the classes: a text file with a line for each, such as 'n01440764 tench', or
    JSON."""

    def resolved(self) -> Reading:
        """Return a copy with absolute paths."""
        images, names = (path and path.resolve() for path in (self.images, self.class_names))
        return replace(self, images=images, class_names=names)


AS_IT_IS = Reading()
