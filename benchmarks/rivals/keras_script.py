"""The reference recipe as a careful user would write it with Keras on TensorFlow, timed.

    python benchmarks/rivals/keras_script.py DATA WEIGHTS.npz --steps 100
    python benchmarks/rivals/keras_script.py DATA WEIGHTS.npz --epochs 10

MobileNetV2 on CIFAR-100 at 96 px, batch 64: the head for 10 epochs, then layers 100 and up for 10
more, validated on the test part after each epoch, as its author did. The weights come from a file
that `inputs.write_keras_weights` wrote. With --steps it times so many training steps of each
phase and prints their seconds; with --epochs it does both phases and prints a line per epoch.
Seconds count from the script's first line.
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
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        dataset = dataset.shuffle(len(images))
    return dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE)


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
    """Callback that records the end of every batch, starting now."""

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
        """Return the seconds of the first batch, with all before it, and of those after `warm`."""
        spent = np.diff(self.ends)
        return {
            "first": round(spent[0], 4),
            "rest": [round(seconds, 5) for seconds in spent[warm:]],
        }


def time_steps(
    model: keras.Model, trunk: keras.Model, parts: list[tf.data.Dataset], warm: int, steps: int
) -> dict[str, Any]:
    """Return the seconds of some steps of training and of validation, in each phase."""
    train, test = parts
    phases = []
    for phase in range(2):
        begin(model, trunk, phase)
        training = Clock()
        model.fit(train.take(warm + steps), epochs=1, callbacks=[training], verbose=0)
        validating = Clock()
        model.evaluate(test.take(warm + steps), callbacks=[validating], verbose=0)
        phases.append({"train": training.after(warm), "validate": validating.after(warm)})
    # Before its first batch, every epoch waits for the shuffled order to be drawn.
    begun = time.perf_counter()
    next(iter(train))
    return {"phases": phases, "fill": round(time.perf_counter() - begun, 4)}


class Lines(keras.callbacks.Callback):
    """Callback that prints a JSON line per epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """See Keras."""
        line = {"epoch": epoch + 1, "at": round(time.perf_counter() - BEGUN, 2)}
        for name in ("accuracy", "loss"):
            line[f"train_{name}"] = round(float(logs[name]), 5)
            line[f"val_{name}"] = round(float(logs[f"val_{name}"]), 5)
        print(json.dumps(line), flush=True)


def main() -> None:
    """Load, build, and time some steps or do all epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of CIFAR-100's parquet shards")
    parser.add_argument("weights", type=Path, help="the trunk's weights, .npz in Keras's order")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--steps", type=int, help="time so many steps of each phase")
    mode.add_argument("--epochs", type=int, help="do so many epochs of each phase")
    parser.add_argument("--warm", type=int, default=20, help="steps that are not timed")
    chosen = parser.parse_args()
    (images, labels), test_part = load_part(chosen.data, "train"), load_part(chosen.data, "test")
    train, test = batches(images, labels, shuffle=True), batches(*test_part, shuffle=False)
    loaded = time.perf_counter()
    model, trunk = build(chosen.weights, 100)
    built = time.perf_counter()
    if chosen.epochs:
        for phase in range(2):
            begin(model, trunk, phase)
            model.fit(
                train,
                initial_epoch=phase * chosen.epochs,
                epochs=(phase + 1) * chosen.epochs,
                validation_data=test,
                callbacks=[Lines()],
                verbose=0,
            )
        return
    figures = {
        "start": round(IMPORTED - BEGUN, 3),
        "data": round(loaded - IMPORTED, 3),
        "model": round(built - loaded, 3),
        "images": len(images),
        "held_out": len(test_part[0]),
        "batch": BATCH,
        "warm": chosen.warm,
        **time_steps(model, trunk, [train, test], chosen.warm, chosen.steps),
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
