"""The reference recipe as a careful user writes it with Keras on TensorFlow, with a clock in it.

    python benchmarks/rivals/keras_script.py DATA WEIGHTS.npz --steps 100
    python benchmarks/rivals/keras_script.py DATA WEIGHTS.npz --whole FOLDER

MobileNetV2 on CIFAR-100 at 96 px, batch 64: the head for 10 epochs, then layers 100 and up for 10
more, validated on the test part after each epoch, as its author did. The weights come from a file
that `workbench.write_keras_weights` wrote. With --steps it times so many training steps of each
phase, and prints what they took; with --whole it does all of it, printing a line per epoch, and
goes on from FOLDER if it was stopped. Seconds count from the script's first line.
"""

from __future__ import annotations

import time

BEGUN = time.perf_counter()

import argparse
import io
import json
import os
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from keras import layers
from PIL import Image

IMPORTED = time.perf_counter()

BATCH = 64
EPOCHS = 10  # of each phase
RATES = (1e-3, 1e-5)
THAWED_FROM = 100


def load_part(data: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, 32, 32, 3) uint8 and labels (n,), as `cifar100.load_data` does."""
    tables = [pq.read_table(path) for path in sorted(data.glob(f"{part}-*.parquet"))]
    images, labels = [], []
    for table in tables:
        for cell in table["img"].to_pylist():
            with Image.open(io.BytesIO(cell["bytes"])) as image:
                images.append(np.asarray(image.convert("RGB")))
        labels.append(table["fine_label"].to_numpy())
    return np.stack(images), np.concatenate(labels).astype(np.int64)


def batches(images: np.ndarray, labels: np.ndarray, shuffle: bool) -> tf.data.Dataset:
    """Return a tf.data pipeline."""
    found = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        found = found.shuffle(len(images))
    return found.batch(BATCH).prefetch(tf.data.AUTOTUNE)


def build(weights: Path, classes: int) -> tuple[keras.Model, keras.Model]:
    """Return the model and the trunk in it."""
    trunk = keras.applications.MobileNetV2(input_shape=(96, 96, 3), include_top=False, weights=None)
    with np.load(weights) as values:
        for layer in trunk.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.epsilon = float(values["epsilon"])
            names = [f"{layer.name}/{number}" for number in range(len(layer.weights))]
            layer.set_weights([values[name] for name in names])
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Resizing(96, 96, interpolation="bilinear"),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.Rescaling(1 / 127.5, offset=-1),
            trunk,
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    return model, trunk


def begin(model: keras.Model, trunk: keras.Model, phase: int) -> None:
    """Freeze what the phase does not train, and compile."""
    trunk.trainable = phase == 1
    for layer in trunk.layers[:THAWED_FROM]:
        layer.trainable = False
    model.compile(
        optimizer=keras.optimizers.Adam(RATES[phase]),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )


class Clock(keras.callbacks.Callback):
    """Notes the end of every batch of a fit or an evaluation that begins now."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = [time.perf_counter()]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """See Keras."""
        self.ends.append(time.perf_counter())

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """See Keras."""
        self.ends.append(time.perf_counter())

    def after(self, warm: int) -> dict[str, Any]:
        """Return the seconds of the first batch, with all that comes before it, and of the rest."""
        spent = np.diff(self.ends)
        return {"first": round(spent[0], 4), "rest": [round(each, 5) for each in spent[warm:]]}


def time_steps(
    model: keras.Model,
    trunk: keras.Model,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    warm: int,
    steps: int,
) -> dict[str, Any]:
    """Return the seconds of some steps of training and of validation, in each phase."""
    phases = []
    for phase in range(2):
        begin(model, trunk, phase)
        training = Clock()
        model.fit(train.take(warm + steps), epochs=1, callbacks=[training], verbose=0)
        validating = Clock()
        model.evaluate(test.take(warm + steps), callbacks=[validating], verbose=0)
        phases.append({"train": training.after(warm), "validate": validating.after(warm)})
    # What every epoch waits for before its first batch: the shuffled order is drawn.
    begun = time.perf_counter()
    next(iter(train))
    return {"phases": phases, "fill": round(time.perf_counter() - begun, 4)}


class Keep(keras.callbacks.Callback):
    """Prints a line per epoch and keeps the model and the lines, so that a stop costs an epoch."""

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__()
        self.folder = folder
        self.epochs = epochs  # of each phase
        self.log = folder / "epochs.json"
        self.lines: list[dict[str, Any]] = []
        self.origin = BEGUN
        if self.log.is_file():
            self.lines = json.loads(self.log.read_text())
            for line in self.lines:
                print(json.dumps(line), flush=True)

    def go_on(self) -> None:
        """Let the clock go on from the last epoch kept: a second start is not the script's time."""
        if self.lines:
            self.origin = time.perf_counter() - self.lines[-1]["at"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """See Keras."""
        now = time.perf_counter()
        line = {
            "epoch": epoch + 1,
            "phase": epoch // self.epochs,
            "at": round(now - self.origin, 2),
            "train_accuracy": round(float(logs["accuracy"]), 5),
            "train_loss": round(float(logs["loss"]), 5),
            "val_accuracy": round(float(logs["val_accuracy"]), 5),
            "val_loss": round(float(logs["val_loss"]), 5),
        }
        self.lines.append(line)
        # The model first: a line without its model could not be gone on from.
        self.model.save(self.folder / f"after-{epoch + 1}.keras")
        beside = self.log.with_suffix(".tmp")
        beside.write_text(json.dumps(self.lines))
        beside.replace(self.log)
        (self.folder / f"after-{epoch}.keras").unlink(missing_ok=True)
        print(json.dumps(line), flush=True)
        self.origin += time.perf_counter() - now  # a user would not have kept every epoch


def do_whole(
    model: keras.Model,
    trunk: keras.Model,
    train: tf.data.Dataset,
    test: tf.data.Dataset,
    folder: Path,
    epochs: int,
) -> None:
    """Do both phases, or what is left of them."""
    folder.mkdir(parents=True, exist_ok=True)
    keep = Keep(folder, epochs)
    done = len(keep.lines)
    if done:
        model = keras.saving.load_model(folder / f"after-{done}.keras")
        trunk = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    keep.go_on()
    for phase, end in enumerate((epochs, 2 * epochs)):
        if done >= end:
            continue
        first = max(done, end - epochs)
        if first == end - epochs:
            begin(model, trunk, phase)
        model.fit(
            train,
            epochs=end,
            initial_epoch=first,
            validation_data=test,
            callbacks=[keep],
            verbose=0,
        )


def main() -> None:
    """Load, build, and time some steps or do all epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of CIFAR-100's parquet shards")
    parser.add_argument("weights", type=Path, help="the trunk's weights, .npz in Keras's order")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--steps", type=int, help="time so many steps of each phase")
    mode.add_argument("--whole", type=Path, help="do all epochs, kept in this folder")
    parser.add_argument("--warm", type=int, default=20, help="steps that are not timed")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each phase, with --whole")
    chosen = parser.parse_args()
    (images, labels), test_part = load_part(chosen.data, "train"), load_part(chosen.data, "test")
    train, test = batches(images, labels, shuffle=True), batches(*test_part, shuffle=False)
    loaded = time.perf_counter()
    model, trunk = build(chosen.weights, 100)
    built = time.perf_counter()
    if chosen.whole:
        do_whole(model, trunk, train, test, chosen.whole, chosen.epochs)
        return
    found = {
        "start": round(IMPORTED - BEGUN, 3),
        "data": round(loaded - IMPORTED, 3),
        "model": round(built - loaded, 3),
        "images": len(images),
        "held_out": len(test_part[0]),
        "batch": BATCH,
        "warm": chosen.warm,
        **time_steps(model, trunk, train, test, chosen.warm, chosen.steps),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
