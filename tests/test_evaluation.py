"""`thawnet.evaluate`: the run's own figures, classes matched by name, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import thawnet
from support.bundles import COLOURS
from support.commands import run_without
from thawnet.bundle.format import TRAINED_ON, short_hashes
from thawnet.core.errors import BundleError, DataError, ThawnetError
from thawnet.core.files import sha256_file
from thawnet.data.items import sha256_rows
from thawnet.evaluation import pair_up
from thawnet.recipe import TrainOptions
from thawnet.training import run

NUMBERS = itertools.count()  # so that no two images are the same


def paint(path: Path, colour: tuple[int, int, int]) -> Path:
    """Write an image of one colour that no other file equals."""
    pixels = np.full((40, 40, 3), colour, np.uint8)
    pixels[0, 0] = np.frombuffer(next(NUMBERS).to_bytes(3, "little"), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def flags(tmp_path: Path) -> Path:
    """Return train and test of four colours; of the test part's 20, three are wrongly filed."""
    root = tmp_path / "flags"
    for part, count in (("train", 3), ("test", 5)):
        for name in ("red", "green", "blue", "yellow"):
            for number in range(count):
                paint(root / part / name / f"{number}.png", COLOURS[name])
    paint(root / "test" / "red" / "0.png", COLOURS["blue"])
    paint(root / "test" / "red" / "1.png", COLOURS["blue"])
    paint(root / "test" / "green" / "0.png", COLOURS["cyan"])
    return root


def trained_on(bundle: Path, files: list[Path], to: Path) -> Path:
    """Return a copy of a bundle that says that it was trained on some files."""
    shutil.copytree(bundle, to)
    hashes = short_hashes(sha256_rows(file.read_bytes() for file in files))
    (to / TRAINED_ON).write_bytes(hashes.astype("<u8").tobytes())
    described = json.loads((to / "model.json").read_text())
    described["sha256"][TRAINED_ON] = sha256_file(to / TRAINED_ON)
    (to / "model.json").write_text(json.dumps(described))
    return to


# --- the figures ---------------------------------------------------------------------------------


def test_test_part_is_measured_and_errors_are_found(flags: Path, colours: Path) -> None:
    told: list[str] = []
    found = thawnet.evaluate(colours, str(flags), tell=told.append)
    assert told[0] == "evaluating on the test part of flags: 20 images"
    assert (found.part, found.images, found.accuracy) == ("test", 20, 17 / 20)
    assert found.top_5 == 1
    pairs = [(pair.true, pair.predicted, pair.images) for pair in found.confusions]
    assert pairs == [("red", "blue", 2), ("green", "cyan", 1)]
    assert [score.name for score in found.per_class] == ["red", "green", "blue", "yellow"]
    recalls = [score.recall for score in found.per_class]
    assert recalls == pytest.approx([3 / 5, 4 / 5, 1, 1])
    assert found.per_class[2].precision == pytest.approx(5 / 7)
    assert (found.model_classes, found.taken_for_others) == (6, 1)
    assert (found.unfamiliar, found.trained_on, found.unreadable) == (0, 0, ())
    assert found.superclass_accuracy is None
    assert (found.model, found.backbone, found.data) == (str(colours), "mean", "flags")
    opened = thawnet.load(colours, threads=1)
    assert thawnet.evaluate(opened, str(flags), part="test") == found
    assert thawnet.evaluate(colours, "flags", flags.parent).accuracy == found.accuracy
    train = thawnet.evaluate(str(colours), str(flags), part="train")
    assert (train.part, train.images, train.accuracy) == ("train", 12, 1)


def test_data_without_a_test_part_is_measured_whole(flags: Path, colours: Path) -> None:
    (flags / "test").rename(flags / "val")
    told: list[str] = []
    found = thawnet.evaluate(colours, str(flags), tell=told.append)
    assert told[0] == "evaluating on all of flags, which has no test part: 32 images"
    assert (found.part, found.images, found.accuracy) == ("all", 32, 29 / 32)
    assert thawnet.evaluate(colours, str(flags), part="val").accuracy == 17 / 20


@pytest.mark.parametrize("order", [["yellow", "blue", "green", "red"], ["green", "yellow"]])
def test_classes_are_matched_by_name_whatever_their_order(
    flags: Path, colours: Path, tmp_path: Path, order: list[str]
) -> None:
    whole = thawnet.evaluate(colours, str(flags))
    rows = [
        f"{file},{file.parent.name}" for name in order for file in (flags / "test" / name).iterdir()
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    found = thawnet.evaluate(colours, str(table))
    kept = [score for score in whole.per_class if score.name in order]
    assert [(each.name, each.recall, each.support) for each in found.per_class] == [
        (each.name, each.recall, each.support) for each in kept
    ]
    if len(order) == 4:
        same = dataclasses.replace(found, data=whole.data, part=whole.part)
        assert same == whole
    else:
        assert found.accuracy == 9 / 10


def test_unfamiliar_images_are_counted(flags: Path, colours: Path) -> None:
    for number in range(5):
        paint(flags / "test" / "yellow" / f"bright{number}.png", (255, 255, 240))
    assert thawnet.evaluate(colours, str(flags)).unfamiliar == 5 / 25


def test_no_share_of_unfamiliar_images_where_the_model_can_not_tell(
    photos: Callable[..., Path], bundle: Path
) -> None:
    assert thawnet.evaluate(bundle, str(photos({"a": 2, "b": 2}))).unfamiliar is None


def test_images_of_the_training_data_are_found_by_content(
    flags: Path, colours: Path, tmp_path: Path
) -> None:
    red, blue = flags / "test" / "red", flags / "test" / "blue"
    shutil.copyfile(blue / "0.png", blue / "same.png")
    known = [red / "0.png", blue / "0.png", flags / "train" / "red" / "0.png"]
    bundle = trained_on(colours, known, tmp_path / "marked")
    found = thawnet.evaluate(bundle, str(flags))
    assert (found.images, found.accuracy) == (21, 18 / 21)
    assert found.trained_on == 3  # one of them twice
    assert found.unseen is not None
    assert (found.unseen.images, found.unseen.accuracy) == (18, 16 / 18)
    every = trained_on(colours, list(flags.rglob("*.png")), tmp_path / "knows all")
    assert thawnet.evaluate(every, str(flags)).unseen is None


def test_unreadable_images_are_listed_and_left_out(flags: Path, colours: Path) -> None:
    (flags / "test" / "red" / "0.png").write_bytes(b"no image")
    (flags / "test" / "blue" / "9.png").symlink_to(flags / "nowhere.png")
    found = thawnet.evaluate(colours, str(flags))
    assert (found.images, found.accuracy) == (19, 17 / 19)
    listed = [(each.image, each.reason) for each in found.unreadable]
    assert listed == [
        ("test/blue/9.png", "no such file"),
        ("test/red/0.png", "not an image in a known format"),
    ]
    whole = thawnet.evaluate(colours, str(flags), part="train")
    assert whole.unreadable == ()


def test_images_that_are_arrays_are_measured(options: TrainOptions) -> None:
    own = dataclasses.replace(options, data="digits")
    outcome = run.train(own)
    found = thawnet.evaluate(outcome.folder, "digits")
    test = outcome.result.metrics["test"]
    assert (found.images, found.top_5 is None) == (1797, False)
    assert found.unseen is not None
    # Drawn digits are in the data twice nowhere, so that the others are the run's test part.
    assert (found.unseen.images, found.unseen.accuracy) == (test.images, test.accuracy)


def test_figures_are_those_that_the_run_gives_for_its_test_part(
    photos: Callable[..., Path], options: TrainOptions
) -> None:
    folder = photos({"a": 24, "b": 24, "c": 24}, "own/train").parent
    photos({"a": 12, "b": 8, "c": 16}, "own/test", start=30)
    outcome = run.train(dataclasses.replace(options, data=str(folder)))
    wanted = outcome.result.metrics["test"]
    found = thawnet.evaluate(outcome.folder, str(folder))
    assert found.line == outcome.line
    assert (found.images, found.accuracy) == (36, wanted.accuracy)
    assert found.interval_95 == wanted.interval_95
    assert found.balanced_accuracy == wanted.balanced_accuracy
    error = wanted.expected_calibration_error.calibrated
    assert found.expected_calibration_error == pytest.approx(error, abs=1e-3)
    assert found.trained_on == 0
    train = thawnet.evaluate(outcome.folder, str(folder), part="train")
    assert (train.images, train.trained_on) == (72, 72)


# --- what is refused -----------------------------------------------------------------------------


def refused(kind: type[ThawnetError], model: Path, data: Path) -> str:
    with pytest.raises(kind) as caught:
        thawnet.evaluate(model, str(data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_that_the_model_does_not_know_is_named_with_the_nearest(
    flags: Path, colours: Path
) -> None:
    for part in ("train", "test"):
        (flags / part / "yellow").rename(flags / part / "yelow")
    assert refused(DataError, colours, flags) == (
        "the model does not know 1 of the 4 classes of 'flags': 'yelow'; for 'yelow' did you mean "
        "'yellow'?; if these are other names, give --class-names FILE"
    )
    for name in ("Red", "violet", "pink", "w"):
        paint(flags / "train" / name / "0.png", (1, 2, 3))
    shutil.rmtree(flags / "train" / "red")
    shutil.rmtree(flags / "test" / "red")
    told = refused(DataError, colours, flags)
    assert told == (
        "the model does not know 5 of the 7 classes of 'flags': 'Red', 'pink', 'violet' and 2 more;"
        " for 'Red' did you mean 'red'?; if these are other names, give --class-names FILE"
    )


def test_part_without_an_image_that_can_be_read_is_refused(flags: Path, colours: Path) -> None:
    files = list((flags / "test").rglob("*.png"))
    for file in files:
        file.write_bytes(b"")
    assert refused(DataError, colours, flags) == (
        "none of the 20 images can be read; the first, 'test/blue/0.png': the file is empty "
        "(0 bytes)"
    )


def test_without_a_labelled_test_part_all_is_measured_and_said(flags: Path, colours: Path) -> None:
    for folder in (flags / "test").iterdir():
        for file in folder.iterdir():
            file.rename(flags / "test" / f"{folder.name} {file.name}")
    told: list[str] = []
    assert thawnet.evaluate(colours, str(flags), tell=told.append).images == 12
    assert "20 images without a class of train" in told[0]
    assert told[1] == "evaluating on all of flags, which has no test part: 12 images"


def test_bundle_without_its_list_of_training_images_is_refused(
    flags: Path, colours: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(colours, tmp_path / "copy")
    (copy / TRAINED_ON).unlink()
    told = refused(BundleError, copy, flags)
    assert told == f"'{copy / TRAINED_ON}' cannot be read (No such file or directory)"


# --- packages ------------------------------------------------------------------------------------

EXTRA = (
    "torch timm onnx safetensors scipy sklearn pyarrow matplotlib huggingface_hub h5py "
    "jinja2 markupsafe"
)


def without_extra(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import thawnet.cli; sys.exit(thawnet.cli.main(['evaluate', *sys.argv[1:]]))"
    return run_without(EXTRA.split(), code, *arguments)


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_folder_needs_only_the_base_install(flags: Path, colours: Path, how: list[str]) -> None:
    done = without_extra(colours, flags, *how)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == "}" if how else last.startswith("test accuracy: 85.00 %")


@pytest.mark.parametrize(("data", "package"), [("digits", "sklearn"), ("shards", "pyarrow")])
def test_package_that_the_data_needs_is_named_with_the_pip_line(
    colours: Path, tmp_path: Path, data: str, package: str
) -> None:
    (tmp_path / "work" / "shards").mkdir()
    (tmp_path / "work" / "shards" / "train-00000-of-00001.parquet").touch()
    done = without_extra(colours, data)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        f"thawnet: evaluating on '{data}' needs packages that are not installed ({package}): "
        "pip install 'thawnet[train]'"
    )


def test_any_two_networks_are_paired_on_images_that_neither_learned_from(
    bundle: Path, colours: Path, flags: Path, tmp_path: Path
) -> None:
    pairs = pair_up(colours, colours, str(flags))
    assert (pairs.images, pairs.both) == (20, 17)
    files = sorted((flags / "test").rglob("*.png"))
    other = trained_on(colours, files[:8], tmp_path / "other")
    told: list[str] = []
    assert pair_up(colours, other, str(flags), tell=told.append).images == 12
    assert told == ["8 images left out, from which A or B learned"]
    everything = trained_on(colours, files, tmp_path / "everything")
    with pytest.raises(DataError, match="A or B learned from each of the 20 images of 'flags', so"):
        pair_up(everything, colours, str(flags))
    with pytest.raises(DataError, match="B does not know"):
        pair_up(colours, bundle, str(flags))
