"""What every row works with: where things are, how much is done, runs of thawnet and of rivals."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from thawnet.model.keras_layers import keras_layers
from thawnet.training.machine import decide
from trials import RIVALS, EpochWatch, caches, scratch_folder, thawnet, timed


@dataclass(frozen=True)
class Sizes:
    """How much of everything is done.

    pairs, trunk_pairs, share_pairs: alternations. steps, warm: timed steps of a rival, and those
    before them. images, held_out: of CIFAR-100, 0 for all. counts: training images of `scale`.
    photos, starts: of `predict`. share_images: of `share`. epochs: of each phase of a whole Keras
    script. batches: tried for the trunk, each for so many seconds. short: added to runs of
    `thawnet` to make them short.
    """

    pairs: int = 3
    trunk_pairs: int = 7
    share_pairs: int = 5
    steps: int = 100
    warm: int = 20
    images: int = 0
    held_out: int = 0
    counts: tuple[int, ...] = (10_000, 50_000, 200_000)
    photos: int = 10_000
    starts: int = 8
    share_images: int = 5_800
    epochs: int = 10
    batches: tuple[int, ...] = (1, 4, 8, 16, 32, 64, 128)
    seconds: float = 6.0
    short: tuple[str, ...] = ()


WHOLE = Sizes()
REHEARSAL = Sizes(
    pairs=1,
    trunk_pairs=1,
    share_pairs=1,
    steps=2,
    warm=2,
    images=640,
    held_out=320,
    counts=(400, 800),
    photos=40,
    starts=2,
    share_images=640,
    epochs=1,
    batches=(4, 16),
    seconds=0.3,
    short=("--epochs", "1", "1", "--compile", "no"),
)


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)


class Pieces:
    """Tells which piece of a row is next, and how long the rest takes by what the others took."""

    def __init__(self, row: str, pieces: Sequence[tuple[str, float]]) -> None:
        """pieces: what comes one after another, each with its expected minutes."""
        self.row = row
        self.pieces = pieces
        self.place = 0
        self.begun = time.monotonic()

    def next(self) -> None:
        """Say what begins now."""
        title, _ = self.pieces[self.place]
        minutes = [expected for _, expected in self.pieces]
        done, left = sum(minutes[: self.place]), sum(minutes[self.place :])
        if done:
            left *= (time.monotonic() - self.begun) / 60 / done
        self.place += 1
        say(f"{self.row} {self.place}/{len(minutes)}: {title} (about {left:.0f} min left)")


@dataclass
class Bench:
    """Where data, weights and scratch are, how much is done, and the commands run so far."""

    data: Path
    weights: Path
    work: Path
    sizes: Sizes
    commands: list[str] = field(default_factory=list)

    def train(
        self,
        words: Sequence[str],
        place: Path,
        cache: Path,
        program: Sequence[str] = ("-m", "thawnet", "train"),
        data: Path | None = None,
    ) -> dict[str, Any]:
        """Do one run of `thawnet` on CIFAR-100 and return its figures."""
        given = ("--data-dir", str(data or self.data), "--weights", str(self.weights))
        # The last of two equal flags wins.
        whole = ("cifar100", *given, *self.sizes.short, *words)
        found = thawnet(whole, place, cache, program, say)
        self.note(found["command"])
        scores = ", ".join(
            f"{part} {100 * values['accuracy']:.2f} %" for part, values in found["metrics"].items()
        )
        say(f"{found['wall']:7.0f} s  {scores}")
        return found

    def script(self, path: Path, *words: str, epochs: bool = False) -> list[dict[str, Any]]:
        """Run a script and return the JSON lines it printed; epochs: they are told as they come."""
        with scratch_folder(self.work) as place:
            look = EpochWatch(place / "stdout.txt", say) if epochs else (lambda _seconds: None)
            command = [sys.executable, str(path), *words]
            ended = timed(command, place, caches(place / "cache"), look)
        self.note(ended.command)
        return ended.lines

    @property
    def compiling(self) -> str:
        """What is said to --compile, where every run is to be compiled that can be."""
        can = decide("cpu", "auto", "auto").compile != "no"
        return "yes" if can and not self.sizes.short else "no"

    def keras(self, *words: str, epochs: bool = False) -> list[dict[str, Any]]:
        """Run the Keras script from the shared weights."""
        weights = self.work / "keras.npz"
        write_keras_weights(self.weights, weights)
        script = RIVALS / "keras_script.py"
        return self.script(script, str(self.data), str(weights), *words, epochs=epochs)

    def keras_timed(self) -> dict[str, Any]:
        """Time some steps of each phase of the Keras script."""
        (found,) = self.keras(*self.timing())
        return found

    def timing(self) -> tuple[str, ...]:
        """How a rival is told to time some of its steps."""
        return ("--steps", str(self.sizes.steps), "--warm", str(self.sizes.warm))

    def note(self, command: str) -> None:
        """Remember a command, once."""
        if command not in self.commands:
            self.commands.append(command)


def write_keras_weights(weights: Path, path: Path) -> None:
    """Write MobileNetV2's weights, from timm's names, as Keras's layers take them.

    Arrays LAYER/NUMBER in the order of a layer's weights, and `epsilon`, of its batch-norms.
    """
    values: dict[str, Any] = {}
    with safe_open(weights, framework="np") as file:
        values["epsilon"] = float((file.metadata() or {}).get("bn_eps", 1e-3))
        for keras, timm in keras_layers():
            if timm is None:
                continue
            kernel = file.get_tensor(f"{timm}.weight").astype(np.float32)
            if kernel.ndim == 4:  # (out, in, 3, 3)
                depthwise = kernel.shape[1] == 1
                arrays = [kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]
            else:
                names = ("bias", "running_mean", "running_var")
                rest = [file.get_tensor(f"{timm}.{name}").astype(np.float32) for name in names]
                arrays = [kernel, *rest]
            values |= {f"{keras}/{number}": array for number, array in enumerate(arrays)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **values)
