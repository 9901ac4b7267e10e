"""The rows of the benchmark: what each measures, by turns with whom, and about how long it takes.

A row is a function that does its measurements and returns plain values; measured.py says what
they come to.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scale import measure, write_photos, write_shards
from trials import RIVALS, ROOT, TrialFailed, scratch_folder, timed
from workbench import Bench, Pieces

SHARED_OUT = (256, 1024)  # a run divides what it gets among its cores by itself
TRUNK = RIVALS / "trunk.py"
MOST_DEVIATION = {"float32": 1e-3, "bfloat16": 0.1}  # of features, as a share of the largest


@dataclass(frozen=True)
class Row:
    """A row: its name, what it measures, its minutes on the machine it is meant for.

    depends: the folder whose content decides whether it must be done again. asked: whether it is
    done only when it is named.
    """

    name: str
    what: str
    minutes: float
    do: Callable[[Bench], Any]
    depends: str = "src"
    asked: bool = False


def quick(bench: Bench) -> Any:
    """Alternate the Keras script with `quick` on empty and on full caches, a seed each time."""
    seeds = range(bench.sizes.pairs)
    pieces = Pieces(
        "quick",
        [
            piece
            for seed in seeds
            for piece in (
                ("Keras script, some steps of each phase", 2.0),
                (f"quick, seed {seed}, empty caches", 7.0),
                (f"quick, seed {seed}, the same caches", 5.0),
            )
        ],
    )
    pairs = []
    for seed in seeds:
        pieces.next()
        keras = bench.keras_timed()
        words = ("--recipe", "quick", "--seed", str(seed))
        with scratch_folder(bench.work) as place:
            pieces.next()
            cold = bench.train(words, place / "cold", place / "cache")
            pieces.next()
            warm = bench.train(words, place / "warm", place / "cache")
        pairs.append({"keras": keras, "cold": cold, "warm": warm})
    return {"pairs": pairs}


def keras(bench: Bench) -> Any:
    """Do the whole Keras script; one that was stopped goes on from its last epoch."""
    Pieces("keras", [("the whole Keras script, kept epoch by epoch", 60.0)]).next()
    folder = bench.work / "keras"
    epochs = bench.keras(
        *("--whole", str(folder), "--epochs", str(bench.sizes.epochs)), epochs=True
    )
    for file in folder.iterdir():
        file.unlink()
    return {"epochs": epochs}


def seed(bench: Bench) -> Any:
    """Do main.py whole, once, then alternate short runs of it with the Keras script."""
    program = (str(ROOT / "main.py"),)
    pieces = Pieces(
        "seed",
        [
            ("main.py, whole", 30.0),
            *(
                [
                    ("Keras script, some steps of each phase", 2.0),
                    ("main.py, 1 + 2 epochs", 5.0),
                ]
                * bench.sizes.pairs
            ),
        ],
    )
    pieces.next()
    with scratch_folder(bench.work) as place:
        whole = bench.train((), place / "run", place / "cache", program)
    # So short a run would not compile of itself; it is to do what the whole one did.
    compiling = "yes" if any(whole["compiled"]) else "no"
    pairs = []
    for _ in range(bench.sizes.pairs):
        pieces.next()
        keras = bench.keras_timed()
        pieces.next()
        with scratch_folder(bench.work) as place:
            words = ("--epochs", "1", "2", "--compile", compiling)
            short = bench.train(words, place / "run", place / "cache", program)
        pairs.append({"keras": keras, "seed": short})
    return {"whole": whole, "pairs": pairs}


def timm(bench: Bench, images: int = 10_000, loop: Sequence[str] = ()) -> Any:
    """Alternate steps of timm's loop with an epoch of `full-gpu`: both train every layer.

    images: that `full-gpu` trains on. loop: further words for timm's loop.
    """
    pieces = Pieces(
        "timm",
        [("timm loop, some steps", 2.5), ("full-gpu, one epoch and two", 4.0)] * bench.sizes.pairs,
    )
    pairs = []
    with scratch_folder(bench.work) as part:
        write_shards(bench.data, part / "data", bench.sizes.images or images)
        for turn in range(bench.sizes.pairs):
            pieces.next()
            (found,) = bench.script(
                RIVALS / "timm_loop.py",
                *(str(bench.data), str(bench.weights), *bench.timing(), *loop),
            )
            pieces.next()
            # The second thawed epoch: the first may compile.
            words = (
                *("--recipe", "full-gpu", "--size", "96", "--no-test", "--no-report"),
                *("--epochs", "1", "2", "--compile", bench.compiling),
            )
            full = bench.train(words, part / f"run-{turn}", part / "cache", data=part / "data")
            pairs.append({"timm": found, "full": full})
    return {"pairs": pairs}


def timm_whole(bench: Bench) -> Any:
    """Do two whole epochs of timm's loop, for the picture."""
    Pieces("timm-whole", [("timm loop, 2 epochs", 40.0)]).next()
    words = (str(bench.data), str(bench.weights), "--epochs", "2")
    return {"epochs": bench.script(RIVALS / "timm_loop.py", *words, epochs=True)}


def trunk(bench: Bench) -> Any:
    """Alternate processes that pass images through the trunk, each at its best batch."""
    return race(bench, {"thawnet": SHARED_OUT, "onnxruntime": (), "eager": ()})


def race(bench: Bench, contenders: dict[str, Sequence[int]]) -> Any:
    """Find each contender's best batch among those given or usual, then take turns."""
    sizes = bench.sizes
    minutes = len(contenders) * (sizes.seconds + 12) / 60
    pieces = Pieces(
        "trunk",
        [("the best batch of each", minutes * 2)]
        + [(f"turn {turn + 1}", minutes) for turn in range(sizes.trunk_pairs)],
    )
    pieces.next()
    tried: dict[str, Any] = {}
    features: dict[str, Any] = {}
    for name, batches in contenders.items():
        tried[name], features[name] = _pass(bench, name, batches or sizes.batches, 0.3)
    exact = features["eager"]
    deviations = {
        name: float(np.abs(found - exact).max() / np.abs(exact).max())
        for name, found in features.items()
    }
    for name, off in deviations.items():
        if off > MOST_DEVIATION[tried[name]["precision"]]:
            raise TrialFailed(f"the features of {name} differ from eager PyTorch's by {off:.1e}")
    turns = []
    for turn in range(sizes.trunk_pairs):
        pieces.next()
        # Each is first, and last, in its turn.
        names = list(contenders)
        names = names[turn % len(names) :] + names[: turn % len(names)]
        found = {name: _pass(bench, name, (tried[name]["best_batch"],), 1.0)[0] for name in names}
        turns.append(
            {name: one["images_per_second"][str(one["best_batch"])] for name, one in found.items()}
        )
    return {"tried": tried, "deviations": deviations, "turns": turns}


def _pass(bench: Bench, name: str, batches: Sequence[int], share: float) -> tuple[Any, Any]:
    """Return what one process of one contender printed, and the features that it wrote."""
    with scratch_folder(bench.work) as place:
        file = place / "features.npy"
        (found,) = bench.script(
            TRUNK,
            *(name, str(bench.weights), str(file), "--seconds", str(share * bench.sizes.seconds)),
            *("--batch", *map(str, batches)),
        )
        return found, np.load(file)


def share(bench: Bench, recipe: str = "full", images: int = 0, words: Sequence[str] = ()) -> Any:
    """Alternate epochs of a recipe with epochs on batches that are ready.

    images: in an epoch, 0 for the usual ones. words: further ones for share.py.
    """
    Pieces("share", [(f"epochs of {recipe}, whole and on ready batches", 8.0)]).next()
    sizes = bench.sizes
    with scratch_folder(bench.work) as place:
        write_shards(bench.data, place / "data", sizes.images or images or sizes.share_images)
        (found,) = bench.script(
            ROOT / "benchmarks" / "share.py",
            *(str(place / "data"), str(bench.weights), "--recipe", recipe, *words),
            *("--pairs", str(sizes.share_pairs), "--compile", bench.compiling),
        )
    return found


def scale(bench: Bench) -> Any:
    """Do `quick` with one epoch a phase on more and more images."""
    counts = bench.sizes.counts
    pieces = Pieces("scale", [(f"{count:,} images", 0.8 + count / 27_000) for count in counts])
    words = ("--weights", str(bench.weights), "--epochs", "1", "1")
    runs = []
    for count in counts:
        pieces.next()
        with scratch_folder(bench.work) as place:
            write_shards(bench.data, place / "data", count)
            found = measure(place / "data", 1, words, place)
        bench.note(found["command"])
        runs.append({**found, "images": count})
    return {"runs": runs}


def full(bench: Bench) -> Any:
    """Do `full` whole, once."""
    Pieces("full", [("full, whole", 70.0)]).next()
    with scratch_folder(bench.work) as place:
        return {"run": bench.train(("--recipe", "full"), place / "run", place / "cache")}


def predict(bench: Bench) -> Any:
    """Predict one image, folders beside decoding and the network alone, and ten times as many."""
    sizes = bench.sizes
    pieces = Pieces(
        "predict",
        [
            ("writing 20,000 photos", 1.5),
            ("one image", 0.2),
            ("32 px", 1.0),
            ("500 x 375 px", 2.0),
            ("memory", 1.0),
        ],
    )
    command = (sys.executable, "-m", "thawnet", "predict")
    with scratch_folder(bench.work) as place:
        pieces.next()
        small = write_photos(bench.data, place / "small", sizes.photos, (32, 32))
        large = write_photos(bench.data, place / "large", sizes.photos, (500, 375))
        pieces.next()
        one = (*command, str(large / "00000.jpg"))
        starts = [timed(one, place / "one") for _ in range(sizes.starts)]
        found = {"starts": [each.wall for each in starts[1:]]}  # the first warms the disk
        bench.note(starts[0].command)
        script = str(ROOT / "benchmarks" / "predicting.py")
        for name, folder in (("small", small), ("large", large)):
            pieces.next()
            (found[name],) = bench.script(script, str(folder), "--turns", str(sizes.share_pairs))
        pieces.next()
        found["memory"] = {}
        for times in (1, 10):
            done = timed((*command, *[str(small)] * times, "--out", "found.txt"), place / "memory")
            found["memory"][str(times * sizes.photos)] = done.memory
            shutil.rmtree(place / "memory")
    return found


ROWS = (
    Row("quick", "the Keras script and `quick` by turns, on empty and on full caches", 42, quick),
    Row("trunk", "the frozen trunk: thawnet, ONNX Runtime, eager PyTorch", 8, trunk),
    Row("share", "what of a `full` epoch is forward, backward and step", 8, share),
    Row("scale", "seconds and memory as images grow", 12, scale),
    Row("timm", "every layer training: images/s of timm's loop and of `full-gpu`", 20, timm),
    Row("seed", "the Keras script and main.py by turns; main.py whole", 51, seed),
    Row("keras", "the Keras script, whole", 60, keras, depends="benchmarks/rivals"),
    Row("full", "a whole run of `full`", 70, full),
    Row("predict", "prediction: one image, folders, memory", 6, predict),
    Row(
        "timm-whole",
        "two epochs of timm's loop, for the picture",
        40,
        timm_whole,
        depends="benchmarks/rivals",
        asked=True,
    ),
)
