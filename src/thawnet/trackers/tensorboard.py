"""TensorBoard: event files in the run folder, `tensorboard --logdir RUN`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..metrics.result import PLOT
from .tracker import Start, Values

FOLDER = "tensorboard"  # in the run folder


class TensorBoard:
    """A run as TensorBoard's event files."""

    def __init__(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = start.folder / FOLDER
        self.known_as, self.place = FOLDER, str(folder)
        # What an interrupted run wrote after its last checkpoint comes again.
        self.writer = SummaryWriter(str(folder), purge_step=start.points + 1)
        self.parameters = dict(start.parameters)
        self.step = start.points
        rows = "\n".join(f"| {name} | {value} |" for name, value in start.parameters.items())
        self.writer.add_text("recipe", f"| | |\n|---|---|\n{rows}", 0)

    def point(self, step: int, values: Values) -> None:
        """See Tracker."""
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def note(self, step: int, title: str, text: str) -> None:
        """See Tracker."""
        self.writer.add_text(title, text, step)

    def end(self, values: Values, folder: Path) -> None:
        """See Tracker. Values become a row of TensorBoard's table of hyperparameters."""
        self.writer.add_hparams(self.parameters, dict(values), run_name=".")
        plot = folder / PLOT
        if plot.exists():
            self.writer.add_image("history", _pixels(plot), self.step, dataformats="HWC")
        self.writer.close()

    def stop(self) -> None:
        """See Tracker."""
        self.writer.close()


def _pixels(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
