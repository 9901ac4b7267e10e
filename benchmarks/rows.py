"""The rows of the benchmark: what each measures, and about how long it takes.

A row is a function that returns plain values. results/KIND/ROW.json stores them, and page.py
summarises them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inputs import write_classes, write_digits, write_few, write_photos, write_shards
from runs import RIVALS, ROOT, Bench, RunFailed, as_typed, emptied, timed

SCRIPTS = ROOT / "benchmarks"
MOST_DEVIATION = 1e-3  # of features, as a share of the largest
# Batch sizes tried for the trunk. thawnet itself divides a batch among its cores.
SMALL = (1, 4, 8, 16, 32, 64, 128)
BATCHES = {"thawnet": (256, 1024), "onnxruntime": SMALL, "eager": SMALL}
FEW = {"flowers": 100, "sign-digits": 60}  # test photos per class, by data set
NETWORKS = ("mobilenetv2_100", "tf_efficientnet_lite0")
PANEL = ("cifar100-50", "cifar100-10", "flowers", "sign-digits", "digits")
EVERY = 1_000_000  # photos per class: all of them
LOOP = ("--batch", "512", "--precision", "bfloat16")  # as in full-gpu


@dataclass(frozen=True)
class Row:
    """A row of RESULTS.md."""

    name: str
    title: str
    minutes: float
    """About how long it takes on the machine that it is meant for."""
    measure: Callable[[Bench], Any]
    source: str = "src"
    """The folder whose changes make a new measurement necessary."""


def quick(bench: Bench) -> Any:
    """Alternate the Keras script with `quick` on empty and on full caches, once per seed."""
    pairs = []
    for seed in range(bench.size(3, 1)):
        (keras,) = bench.keras(*bench.steps)
        words = ("--recipe", "quick", "--seed", str(seed))
        with emptied(bench.scratch / "quick") as folder:
            cold = bench.train(words, folder / "cold", folder / "cache")
            warm = bench.train(words, folder / "warm", folder / "cache")
        pairs.append({"keras": keras, "cold": cold, "warm": warm})
    return {"pairs": pairs}


def keras(bench: Bench) -> Any:
    """Run the whole Keras script."""
    return {"epochs": bench.keras("--epochs", bench.size(10, 1))}


def seed(bench: Bench) -> Any:
    """Run main.py whole, once, then alternate short runs of it with the Keras script."""
    program = (str(ROOT / "main.py"),)
    with emptied(bench.scratch / "seed") as folder:
        whole = bench.train((), folder / "run", folder / "cache", program)
    # So short a run would not compile by default; it must do what the whole run did.
    words = ("--epochs", "1", "2", "--compile", "yes" if any(whole["compiled"]) else "no")
    pairs = []
    for _ in range(bench.size(3, 1)):
        (keras,) = bench.keras(*bench.steps)
        with emptied(bench.scratch / "seed") as folder:
            short = bench.train(words, folder / "run", folder / "cache", program)
        pairs.append({"keras": keras, "seed": short})
    return {"whole": whole, "pairs": pairs}


def timm(bench: Bench, images: int = 10_000, loop: Sequence[str] = ()) -> Any:
    """Alternate steps of timm's loop with an epoch of `full-gpu`: both train every layer.

    images: the number that `full-gpu` trains on. loop: further arguments of timm's loop.
    """
    data = bench.scratch / "data"
    write_shards(bench.data, data, bench.size(images, 640))
    # The second thawed epoch counts: the first may compile.
    words = (
        *("--recipe", "full-gpu", "--size", "96", "--no-test", "--no-report"),
        *("--epochs", "1", "2", "--compile", bench.compiling),
    )
    pairs = []
    for turn in range(bench.size(3, 1)):
        (rival,) = bench.script(
            RIVALS / "timm_loop.py", bench.data, bench.weights, *bench.steps, *bench.size(loop, ())
        )
        run = bench.scratch / f"run-{turn}"
        pairs.append(
            {"timm": rival, "full": bench.train(words, run, bench.scratch / "cache", data=data)}
        )
    return {"pairs": pairs}


def trunk(bench: Bench) -> Any:
    """Find each contender's best batch size, then measure them by turns."""
    tried: dict[str, Any] = {}
    features: dict[str, Any] = {}
    for name, batches in BATCHES.items():
        tried[name], features[name] = _pass(bench, name, bench.size(batches, (4, 16)), 1.8)
    exact = features["eager"]
    deviations = {
        name: float(np.abs(values - exact).max() / np.abs(exact).max())
        for name, values in features.items()
    }
    for name, deviation in deviations.items():
        if deviation > MOST_DEVIATION:
            raise RunFailed(f"features of {name} differ from eager PyTorch's by {deviation:.1e}")
    turns = []
    for turn in range(bench.size(7, 1)):
        # The order rotates, so that no contender is always first or last.
        names = list(BATCHES)
        names = names[turn % len(names) :] + names[: turn % len(names)]
        speeds = {}
        for name in names:
            best = tried[name]["best_batch"]
            speeds[name] = _pass(bench, name, [best], 6.0)[0]["images_per_second"][str(best)]
        turns.append(speeds)
    return {"tried": tried, "deviations": deviations, "turns": turns}


def _pass(bench: Bench, name: str, batches: Sequence[int], seconds: float) -> tuple[Any, Any]:
    """Return what one process of one contender printed, and the features that it wrote."""
    file = bench.scratch / "features.npy"
    (speed,) = bench.script(
        RIVALS / "trunk.py",
        *(name, bench.weights, file, "--seconds", bench.size(seconds, 0.1), "--batch", *batches),
    )
    return speed, np.load(file)


def share(bench: Bench, recipe: str = "full", images: int = 5_800, *words: str) -> Any:
    """Alternate epochs of a recipe with epochs on batches in memory.

    images: the number in an epoch. words: further arguments of share.py.
    """
    write_shards(bench.data, bench.scratch / "data", bench.size(images, 640))
    (epochs,) = bench.script(
        SCRIPTS / "share.py",
        *(bench.scratch / "data", bench.weights, "--recipe", recipe, *words),
        *("--pairs", bench.size(5, 1), "--compile", bench.compiling),
    )
    return epochs


def scale(bench: Bench) -> Any:
    """Run `quick`, one epoch per phase, on more and more images."""
    words = ("--recipe", "quick", "--epochs", "1", "1")
    runs = []
    for count in bench.size((10_000, 50_000, 200_000), (400, 800)):
        with emptied(bench.scratch / "scale") as folder:
            write_shards(bench.data, folder / "data", count)
            run = bench.train(words, folder, folder / "cache", data=folder / "data")
        runs.append({**run, "images": count})
    return {"runs": runs}


def few(bench: Bench) -> Any:
    """Run `quick` on a few photos per class of each data set, three times on other photos."""
    runs = []
    for name, tested in FEW.items():
        for photos in bench.size((5, 10, 20, 40), (2,)):
            for seed in bench.size((0, 1, 2), (0,)):
                with emptied(bench.scratch / "few") as folder:
                    data = write_few(bench.photos / name, folder / name, tested, photos, seed)
                    words = ("--recipe", "quick", "--no-report")
                    run = bench.train(words, folder / "run", folder / "cache", photos=data)
                runs.append({**run, "data": name, "photos": photos, "split": seed})
    return {"runs": runs}


def panel(bench: Bench) -> Any:
    """Run `quick` with its defaults on five data sets from two networks, with three seeds."""
    runs = []
    for name, weights in _panel(bench):
        for seed in bench.size((0, 1, 2), (0,)):
            with emptied(bench.scratch / "panel") as folder:
                words = ("--recipe", "quick", "--seed", str(seed), "--no-report")
                run = bench.train(
                    words,
                    folder / "run",
                    folder / "cache",
                    photos=_of_panel(bench, name, folder / name),
                    weights=weights,
                )
            runs.append({**run, "data": name, "weights": weights.stem})
    return {"runs": runs}


def fastai(bench: Bench, network: str, data: str) -> Any:
    """Run fastai's fine_tune(5) on one of these data sets from one of the networks, once."""
    name = bench.size(data, "digits")
    weights = _weights(bench, network)
    with emptied(bench.scratch / "panel") as folder:
        (run,) = bench.script(
            RIVALS / "fastai_tune.py",
            *(_of_panel(bench, name, folder / name), network, weights),
            *("--epochs", bench.size(5, 1)),
        )
    return {"run": {**run, "data": name, "weights": weights.stem}}


def _panel(bench: Bench) -> Sequence[tuple[str, Path]]:
    """Return the names of the panel's data sets, each with both networks' weights."""
    names = bench.size(PANEL, ("digits",))
    return [(name, _weights(bench, network)) for network in NETWORKS for name in names]


def _weights(bench: Bench, network: str) -> Path:
    """Return a network's weights from ImageNet, which lie beside MobileNetV2's."""
    return bench.weights.with_name(f"{network}_imagenet.safetensors")


def _of_panel(bench: Bench, name: str, folder: Path) -> Path:
    """Write a data set of the panel, always the same, as train/ and test/; return the folder."""
    if name == "digits":
        return write_digits(folder)
    if name in FEW:
        return write_few(bench.photos / name, folder, FEW[name], EVERY, seed=0)
    return write_classes(bench.data, folder, int(name.rpartition("-")[2]))


def whole(recipe: str, words: Sequence[str], bench: Bench) -> Any:
    """Run a whole recipe once, on empty caches."""
    words = ("--recipe", recipe, *words)
    return {"run": bench.train(words, bench.scratch / "run", bench.scratch / "cache")}


def gpu_tests(bench: Bench) -> Any:
    """Run the project's tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider"]
    command += [*bench.size((), ("--collect-only",)), str(ROOT / "tests")]
    bench.note(as_typed(command))
    return {"wall": timed(command, bench.scratch).wall}


def predict(bench: Bench) -> Any:
    """Measure the prediction of one image, of folders by turns with its parts, and its memory."""
    count = bench.size(10_000, 40)
    small = write_photos(bench.data, bench.scratch / "small", count, (32, 32))
    large = write_photos(bench.data, bench.scratch / "large", count, (500, 375))
    command = (sys.executable, "-m", "thawnet", "predict")
    one = (*command, str(large / "00000.jpg"))
    bench.note(as_typed(one))
    starts = [timed(one, bench.scratch / "one").wall for _ in range(bench.size(8, 2))]
    figures: dict[str, Any] = {"starts": starts[1:]}  # the first warms the disk's cache
    for folder in (small, large):
        (figures[folder.name],) = bench.script(
            SCRIPTS / "predicting.py", folder, "--turns", bench.size(5, 1)
        )
    figures["memory"] = {}
    for times in (1, 10):
        words = (*command, *[str(small)] * times, "--out", f"{times}.txt")
        figures["memory"][str(times * count)] = timed(words, bench.scratch / "memory").memory
    return figures


CPU = (
    Row("quick", "the Keras script and `quick` by turns, on empty and on full caches", 42, quick),
    Row("trunk", "the frozen trunk: thawnet, ONNX Runtime, eager PyTorch", 8, trunk),
    Row("share", "what of a `full` epoch is forward, backward and step", 8, share),
    Row("scale", "seconds and memory as images grow", 12, scale),
    Row("timm", "every layer training: images/s of timm's loop and of `full-gpu`", 20, timm),
    Row("seed", "the Keras script and main.py by turns; main.py whole", 51, seed),
    Row("keras", "the Keras script, whole", 60, keras, source="benchmarks/rivals"),
    Row("full", "a whole run of `full`", 70, partial(whole, "full", ())),
    Row("few", "`quick` on 5, 10, 20 and 40 photos a class, three times each", 14, few),
    Row("panel", "`quick` on five sets from two networks, three times each", 60, panel),
    *(
        Row(
            f"fastai-{network}-{data}",
            f"fastai's fine_tune(5) on {data} from {network}",
            minutes * cost,
            partial(fastai, network=network, data=data),
            source="benchmarks/rivals",
        )
        for network, cost in zip(NETWORKS, (1.0, 1.3), strict=True)
        for data, minutes in zip(PANEL, (25, 7, 20, 9, 8), strict=True)
    ),
    Row("predict", "prediction: one image, folders, memory", 6, predict),
)


def _recipe(name: str) -> str:
    """Return the file of a recipe that is no preset yet, and the name of any other."""
    file = SCRIPTS / "recipes" / f"{name}.toml"
    return str(file) if file.exists() else name


def _seeds(recipe: str, seeds: Iterable[int], minutes: float) -> list[Row]:
    """Return a row for each of several seeds of a recipe."""
    return [
        Row(
            f"{recipe}-{seed}",
            f"a whole run of `{recipe}`, seed {seed}",
            minutes,
            partial(whole, _recipe(recipe), ("--seed", str(seed))),
        )
        for seed in seeds
    ]


# The most valuable first, as a GPU may be at hand for minutes only.
GPU = (
    Row("tests", "the tests that need a GPU", 1, gpu_tests),
    *_seeds("full", range(3), 3),
    Row(
        "share",
        "an epoch of `full-gpu` beside one on a fixed batch, and a step's floor",
        2,
        lambda bench: share(bench, "full-gpu", 50_000, "--fixed"),
    ),
    *_seeds("speed", range(3), 1.5),
    Row(
        "timm",
        "every layer training: images/s of timm's loop and of `full-gpu`",
        3,
        partial(timm, images=50_000, loop=LOOP),
    ),
    *_seeds("best", range(1), 9),
    *_seeds("quick", range(3), 2),
)
KINDS = {"cpu": CPU, "gpu": GPU}
