"""Trackers get the figures of a run, in their own libraries' forms, and cannot stop it."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.awaiting import wait_until
from support.photos import draw, write_photos
from support.runs import epochs_of
from thawnet import job
from thawnet.core.errors import InterruptedRunError, UsageError
from thawnet.recipe import TrainOptions
from thawnet.trackers import tensorboard
from thawnet.trackers.tracker import Start
from thawnet.training.phase import PhaseJob


@pytest.fixture
def options(options: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Return a call whose head takes two epochs and whose fine-tuning takes two."""
    return dataclasses.replace(options, epochs=(2, 2), out=tmp_path / "run", no_report=False)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of MLflow's store in a folder."""
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return MlflowClient()


def runs_in(store: Any) -> list[Any]:
    """Return all runs in MLflow's store."""
    experiments = [each.experiment_id for each in store.search_experiments()]
    return list(store.search_runs(experiments))


def stopped_after(options: TrainOptions, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a run that is interrupted after some validations."""
    whole, count = PhaseJob._end_round, 0

    def end(*arguments: Any) -> None:
        nonlocal count
        whole(*arguments)
        count += 1
        if count == rounds:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PhaseJob, "_end_round", end)
        with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
            job.train(options)


def test_tensorboard_shows_a_point_per_validation_and_the_thaw(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def draw_plot(path: Path, *_: object) -> None:
        draw(0, 0).save(path)

    monkeypatch.setattr("thawnet.training.history_plot.plot_history", draw_plot)
    outcome = job.train(dataclasses.replace(options, tracker=("tensorboard",)))
    events = EventAccumulator(str(outcome.folder / "tensorboard"))
    events.Reload()
    points = events.Scalars("validation/loss")
    rows = epochs_of(outcome)
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert [point.value for point in points] == pytest.approx([row["val_loss"] for row in rows])
    assert [point.value for point in events.Scalars("phase")] == [1, 1, 2, 2]
    (thawed,) = events.Tensors("thawed/text_summary")
    assert thawed.step == 3
    assert b"after epoch 2: blocks." in thawed.tensor_proto.string_val[0]
    (final,) = events.Scalars("final test/accuracy")
    assert final.value == pytest.approx(outcome.result.metrics["test"].accuracy)
    (recipe,) = events.Tensors("recipe/text_summary")
    row = f"| finetune.lr | {outcome.result.phases[1].lr} |"
    assert row.encode() in recipe.tensor_proto.string_val[0]
    assert len(events.Images("history")) == 1
    assert f"tensorboard logs to {outcome.folder / 'tensorboard'}\n" in capfd.readouterr().err


def test_mlflow_keeps_parameters_points_and_files(options: TrainOptions, store: Any) -> None:
    outcome = job.train(dataclasses.replace(options, tracker=("mlflow",)))
    (run,) = runs_in(store)
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["finetune.lr"] == str(outcome.result.phases[1].lr)
    assert run.data.params["data"] == "photos"
    history = store.get_metric_history(run.info.run_id, "validation/accuracy")
    assert [each.step for each in history] == [1, 2, 3, 4]
    assert [each.value for each in history] == [row["val_accuracy"] for row in epochs_of(outcome)]
    assert run.data.tags["thawed"].startswith("after epoch 2: blocks.")
    kept, *lines = run.data.tags["result"].split("\n\n")
    assert (kept, tuple(lines)) == (f"kept: {outcome.result.kept}", outcome.result.lines)
    final = run.data.metrics["final test/accuracy"]
    assert final == outcome.result.metrics["test"].accuracy
    names = {each.path for each in store.list_artifacts(run.info.run_id)}
    assert names == {"bundle", "report.html", "history.png"}
    bundle = {each.path for each in store.list_artifacts(run.info.run_id, "bundle")}
    assert {"bundle/model.onnx", "bundle/model.json"} <= bundle


def test_a_run_that_goes_on_is_the_same_run(
    options: TrainOptions, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(options, tracker=("mlflow", "tensorboard"))
    stopped_after(options, 3, monkeypatch)
    (run,) = runs_in(store)
    assert run.info.status == "KILLED"
    outcome = job.train(TrainOptions(resume=str(options.out)))
    (run,) = runs_in(store)
    assert run.info.status == "FINISHED"
    steps = {each.step for each in store.get_metric_history(run.info.run_id, "validation/accuracy")}
    assert steps == {1, 2, 3, 4}
    assert run.data.metrics["final test/loss"] == outcome.result.metrics["test"].loss


def test_what_is_logged_is_what_runs_and_what_is_quoted(
    options: TrainOptions, tmp_path: Path, store: Any
) -> None:
    """Of few photos: the head is solved, and the accuracy is cross-validated."""
    few = dataclasses.replace(
        options,
        data=str(write_photos(tmp_path / "few", {"cat": 8, "dog": 8})),
        epochs=None,
        tracker=("mlflow",),
    )
    outcome = job.train(few)
    (run,) = runs_in(store)
    assert run.data.params["head.solved"] == "True"
    assert run.data.params["finetune.train_from"] == outcome.result.phases[1].trains_from
    assert run.data.params["finetune.epochs"] == str(outcome.result.phases[1].epochs)
    assert run.data.params["finetune.batch_size"] == str(outcome.result.phases[1].batch_size)
    final = {name for name in run.data.metrics if name.startswith("final ")}
    assert final == {
        f"final cross-validated/{score}"
        for score in ("accuracy", "balanced_accuracy", "loss", "expected_calibration_error")
    }


def records_of(file: Path) -> Iterator[Any]:
    """Yield the records in a file of an offline run of W&B: a LevelDB log after seven bytes.

    Blocks of 32 KiB hold pieces: checksum, length, kind (1 whole, 2 first, 3 middle, 4 last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.slow  # starts a process of W&B's
def test_wandb_keeps_a_run_offline(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(options.out) + "-staging")
    outcome = job.train(dataclasses.replace(options, tracker=("wandb",)))
    known = json.loads((outcome.folder / "trackers.json").read_text())["wandb"]
    (file,) = outcome.folder.glob(f"wandb/offline-run-*/run-{known}.wandb")
    # W&B's own process may write the file a moment after the run has ended.
    wait_until(lambda: any(each.HasField("exit") for each in records_of(file)))
    points: list[dict[str, Any]] = []
    files: list[str] = []
    for record in records_of(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            points.append(
                {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json)
                    for item in items
                }
            )
        if record.WhichOneof("record_type") == "artifact":
            files += [entry.path for entry in record.artifact.manifest.contents]
    rows = epochs_of(outcome)
    assert [point["phase"] for point in points] == [1, 1, 2, 2]
    assert [point["validation/loss"] for point in points] == [row["val_loss"] for row in rows]
    assert {"report.html", "history.png", "bundle/model.onnx"} <= set(files)


# --- what fails -----------------------------------------------------------------------------------


class Failing:
    """A tracker whose server goes away at some point."""

    known_as = "7"
    place = "nowhere"

    def __init__(self, at: str) -> None:
        self.at = at
        self.stopped = False

    def __call__(self, _start: Start) -> Failing:
        self._fail("start")
        return self

    def _fail(self, where: str) -> None:
        if where == self.at:
            raise ConnectionError("no route to host\nat line 3")

    def point(self, step: int, values: Mapping[str, float]) -> None:
        if step > 1:
            self._fail("point")

    def note(self, step: int, title: str, text: str) -> None:
        self._fail("note")

    def end(self, values: Mapping[str, float], folder: Path) -> None:
        self._fail("end")

    def stop(self) -> None:
        self.stopped = True
        raise ConnectionError("still no route to host")


@pytest.mark.parametrize("at", ["start", "point", "note", "end"])
def test_a_tracker_that_fails_says_one_line_and_the_run_ends_well(
    at: str,
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    failing = Failing(at)
    monkeypatch.setattr(tensorboard, "TensorBoard", failing)
    outcome = job.train(dataclasses.replace(options, tracker=("tensorboard",), no_report=True))
    assert outcome.line.startswith("test accuracy: ")
    said = [line for line in capfd.readouterr().err.splitlines() if "--tracker" in line]
    assert said == ["--tracker tensorboard failed (no route to host): the run continues without it"]
    assert failing.stopped == (at != "start")


def test_a_server_that_is_not_there_costs_seconds_and_a_line(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    outcome = job.train(dataclasses.replace(options, tracker=("mlflow",), no_report=True))
    assert outcome.line.startswith("test accuracy: ")
    assert capfd.readouterr().err.count("--tracker mlflow failed (") == 1


def test_a_package_that_is_missing_is_said_before_anything_is_read(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thawnet.core.packages.missing", lambda packages: list(packages))
    with pytest.raises(UsageError, match=r"--tracker wandb needs .*\(wandb\): .*install wandb"):
        job.train(dataclasses.replace(options, tracker=("wandb",)))
    assert options.out is not None
    assert not options.out.exists()
