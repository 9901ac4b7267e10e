"""Weights & Biases: the project that WANDB_PROJECT or the data names; WANDB_MODE=offline works."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from .tracker import FILES, Start, Values

PATIENCE = 30.0  # seconds that a server may take to begin a run, or a user to log in


class WandB:
    """A run in Weights & Biases."""

    def __init__(self, start: Start) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its makers
        import wandb

        self.wandb = wandb
        self.known_as = start.known_as or secrets.token_hex(4)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or re.sub(r"[/\\#?%:]", "-", start.project),
            name=start.folder.name,
            id=self.known_as,
            resume="allow",
            dir=str(start.folder),
            config=dict(start.parameters),
            settings=wandb.Settings(
                init_timeout=PATIENCE, login_timeout=PATIENCE, silent=True, console="off"
            ),
        )
        self.place = self.run.url or self.run.dir  # offline there is no address
        self.run.define_metric("*", step_metric="epoch")

    def point(self, step: int, values: Values) -> None:
        """See Tracker."""
        self.run.log(dict(values), step=step)

    def note(self, step: int, title: str, text: str) -> None:
        """See Tracker."""
        self.run.summary[title] = text

    def end(self, values: Values, folder: Path) -> None:
        """See Tracker."""
        self.run.summary.update(dict(values))
        kept = self.wandb.Artifact(f"run-{self.known_as}", type="model")
        kept.add_dir(str(folder / "bundle"), name="bundle")
        for name in FILES:
            if (folder / name).exists():
                kept.add_file(str(folder / name))
        self.run.log_artifact(kept)
        self.run.finish()

    def stop(self) -> None:
        """See Tracker."""
        self.run.finish(exit_code=1)
