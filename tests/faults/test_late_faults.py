"""What fails behind the last epoch costs no training; what names and labels show is told first."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import thawnet
from support.photos import draw, encoded
from support.runs import tensors_of
from support.shards import shard, table
from support.shares import HELD_BACK
from thawnet import cli, job
from thawnet.core.errors import DataError, RunError
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange, check_parts
from thawnet.image.preprocess import Reduction
from thawnet.recipe import TrainOptions, load_recipe
from thawnet.training import finish, outputs, parts, run
from thawnet.training.run_folder import Outcome

Photos = Callable[..., Path]
SAFE = r"the trained network is saved in .*bundle.* --resume .*--no-test"


def test_a_test_folder_that_can_not_be_measured_on_is_told_before_anything_is_trained(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 6, "b": 6}, "p/train").parent
    photos({"a": 1, "unknown": 1}, "p/test")
    message = r"test' has a class that train lacks: 'unknown'; known are 'a', 'b'"
    for command in ("train", "doctor"):
        assert cli.main([command, str(folder), "--recipe", "quick"]) == 1
        said = " ".join(capsys.readouterr())
        with pytest.raises(DataError, match=message):
            check_parts(open_source(str(folder)), tested=True)
        assert "--no-test trains without a test part" in said
        assert "epoch" not in said
    assert not Path("runs").exists()
    assert cli.main(["inspect", str(folder)]) == 0
    assert re.search(rf"\n 1\. .*{message}", capsys.readouterr().out.replace("\n    ", " "))
    check_parts(open_source(str(folder)), tested=False)


@pytest.mark.parametrize(
    ("labels", "parts", "note"),
    [
        ([-1, None, 0], {"train", "test"}, "left out: 2 of 3 test images without a label"),
        (
            [-1, None, -1],
            {"train"},
            "left out: 3 of 3 test images without a label, so the whole part",
        ),
    ],
)
def test_parquet_test_labels_of_minus_one_are_left_out_and_counted(
    tmp_path: Path, labels: list[int | None], parts: set[str], note: str
) -> None:
    for part, own in (("train", [0, 1] * 6), ("test", labels)):
        cells = [{"bytes": encoded(draw(0, number))} for number in range(len(own))]
        path = tmp_path / f"{part}-00000-of-00001.parquet"
        path.write_bytes(shard(cells, own, ["a", "b"]))
    source = open_source(str(tmp_path))
    assert source.parts == parts
    assert source.notes == (note,)
    check_parts(source, tested=True)
    if "test" in parts:
        items = source.open_part("test")
        assert (list(items.names), items.labels.tolist()) == (["test/2"], [0])
        assert items.read(0) == encoded(draw(0, 2))


def test_parquet_test_class_that_train_lacks_is_told_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    for part, labels in (("train", ["cat", "dog"] * 6), ("test", ["cat", "dogs"])):
        cells = [{"bytes": encoded(draw(0, number))} for number in range(len(labels))]
        content = table({"image": cells, "label": labels})
        (tmp_path / f"{part}.parquet").write_bytes(content)
    source = open_source(str(tmp_path))
    message = "the test part has a class that train lacks: 'dogs'; did you mean 'dog'"
    with pytest.raises(DataError, match=f"{message}.*--no-test"):
        check_parts(source, tested=True)
    with pytest.raises(DataError, match=message):
        source.open_part("test")
    assert len(source.open_part("train")) == 12


@pytest.mark.parametrize("broken", range(4))
def test_one_broken_photo_in_a_class_of_four_is_left_out_whichever_part_it_falls_to(
    photos: Photos, broken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 4, "b": 4})
    (folder / "a" / f"{broken:03d}.png").write_bytes(b"no image")
    source = open_source(str(folder))
    lists = arrange(source, HELD_BACK)
    assert lists.test is not None
    train, val = parts.open_parts(load_recipe("quick"), source, lists, Reduction(40))
    test = parts.open_images("test", lists.test(), Reduction(40))
    assert len(train) + len(val) + len(test) == 7
    assert set(train.labels) == {0, 1}
    assert f"a/{broken:03d}.png" in capsys.readouterr().err


def test_a_class_without_a_readable_training_image_is_told_with_how_many_there_were(
    photos: Photos,
) -> None:
    folder = photos({"a": 4, "b": 4})
    for path in (folder / "a").iterdir():
        path.write_text(f"no image, {path.name}")
    source = open_source(str(folder))
    with pytest.raises(DataError, match=r"none of the 3 training images of class 'a' can be read"):
        parts.open_parts(load_recipe("quick"), source, arrange(source, HELD_BACK), Reduction(40))


@pytest.fixture
def parted(options: TrainOptions, photos: Photos) -> TrainOptions:
    """Return a call on data with a test folder, 6 images each of a and b, none of c."""
    folder = photos({"a": 8, "b": 8, "c": 8}, "parted/train").parent
    photos({"a": 6, "b": 6}, "parted/test", start=100)
    return dataclasses.replace(options, data=str(folder), out=Path("run"))


def spoil(parted: TrainOptions, *classes: str) -> None:
    for name in classes:
        for path in (Path(parted.data) / "test" / name).iterdir():
            path.write_bytes(b"no image")


def resumed(folder: Path, **more: Any) -> Outcome:
    return run.train(TrainOptions(resume=str(folder), **more))


def test_a_test_class_that_can_not_be_read_is_left_out(parted: TrainOptions) -> None:
    spoil(parted, "b")
    outcome = job.train(dataclasses.replace(parted, no_report=False))
    assert outcome.line.endswith("6 images)")
    assert len(json.loads((outcome.folder / "broken.json").read_text())) == 6
    assert (outcome.folder / "report.html").is_file()


def test_a_test_part_that_can_not_be_read_costs_no_network_and_the_run_is_finished_later(
    parted: TrainOptions, tmp_path: Path
) -> None:
    whole, test = tmp_path / "whole", Path(parted.data) / "test"
    shutil.copytree(test, whole)
    spoil(parted, "a", "b")
    with pytest.raises(RunError, match=rf"none of the 12 test images can be read; .*{SAFE}"):
        run.train(parted)
    assert len(json.loads(Path("run/broken.json").read_text())) == 12
    answers = thawnet.load("run").predict([parted.data + "/train/a/000.png"])
    assert len(answers) == 1
    with pytest.raises(RunError, match=SAFE):
        resumed(Path("run"))
    for copy in ("mended", "gone", "left out"):
        shutil.copytree("run", copy)
    without = resumed(Path("left out"), no_test=True)
    assert without.line.startswith("validation accuracy")
    shutil.rmtree(test)
    gone = resumed(Path("gone"))
    assert gone.line == without.line
    shutil.copytree(whole, test)
    mended = resumed(Path("mended"))
    assert mended.line.startswith("test accuracy")
    assert mended.line.endswith("12 images)")
    assert not Path("mended/broken.json").exists()
    description = json.loads(Path("mended/bundle/model.json").read_text())
    assert description["metrics"]["test"]["accuracy"] == mended.result.metrics["test"].accuracy
    card = Path("mended/bundle/README.md").read_text()
    assert "test accuracy" in card
    assert "logistic regression" in card
    for other in (without, gone):
        for name, tensor in tensors_of(mended).items():
            assert (tensors_of(other)[name] == tensor).all()


def test_logits_of_a_test_part_that_was_mended_meanwhile_are_not_used_again(
    parted: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = Path(parted.data) / "test" / "b"
    content = {path: path.read_bytes() for path in test.iterdir()}
    spoil(parted, "b")

    def fail(*_: object) -> None:
        raise RunError("the memory is full")

    with monkeypatch.context() as patch:
        patch.setattr(finish, "measure_baselines", fail)
        with pytest.raises(RunError, match=f"memory is full; {SAFE}"):
            run.train(parted)
    for path, image in content.items():
        path.write_bytes(image)
    assert resumed(Path("run")).line.endswith("12 images)")


@pytest.mark.parametrize("name", ["write_predictions", "write_result", "describe_bundle"])
def test_a_disk_that_fills_behind_the_last_epoch_costs_no_network(
    parted: TrainOptions, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object) -> None:
        raise RunError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(outputs, name, full)
        with pytest.raises(RunError, match=f"disk is full; {SAFE}"):
            run.train(parted)
    thawnet.load("run")
    assert not Path("run/result.json").exists()
    assert resumed(Path("run")).line.startswith("test accuracy")
