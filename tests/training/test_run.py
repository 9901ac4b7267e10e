"""A whole run on small photos: the two phases, what is left behind, and how it stops."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.patches import after_each_save, calls_of, stop_after
from support.runs import epochs_of, quick_with, tensors_of, under
from thawnet.core.errors import DataError, InterruptedRunError, RunError, UsageError, WeightsError
from thawnet.core.files import cache_entries
from thawnet.data.items import Items, Source, Watch
from thawnet.data.reading import Reading
from thawnet.data.sources.open import open_source
from thawnet.data.store import ImageStore, open_store
from thawnet.image.preprocess import Reduction
from thawnet.metrics.predictions import read_predictions
from thawnet.metrics.result import read_result
from thawnet.model import weights
from thawnet.model.thawing import first_layer
from thawnet.recipe import PRESETS, TrainOptions, load_recipe
from thawnet.training import checkpoint, loop, outputs, phase, run, run_folder, setup
from thawnet.training.checkpoint import Keeper
from thawnet.training.context import Run
from thawnet.training.parts import content_of
from thawnet.training.phase import PhaseJob
from thawnet.training.ranks import ALONE
from thawnet.training.run_folder import Outcome
from thawnet.training.tail import Tail

Job = Callable[..., Outcome]


def same_bits(one: Outcome, other: Outcome) -> bool:
    first, second = tensors_of(one), tensors_of(other)
    return all(torch.equal(first[name], second[name]) for name in first)


def begin(options: TrainOptions) -> Run:
    with ExitStack() as held:
        return setup.setup(options, ALONE, held)


def trained_both_phases(outcome: Outcome, phases: list[int]) -> None:
    """Check a run whose validations are of these phases."""
    rows = epochs_of(outcome)
    assert [row["phase"] for row in rows] == phases
    assert all(np.isfinite(row["val_loss"]) for row in rows)
    assert outcome.line.startswith("test accuracy: ")


@pytest.mark.parametrize("recipe", PRESETS)
def test_digits_start_from_the_network_that_comes_with_the_package(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(name: str, *others: object) -> None:
        raise WeightsError(f"they are {name}")

    monkeypatch.setattr(weights, "_load", stop)
    with pytest.raises(WeightsError, match="they are bundled"):
        begin(TrainOptions(data="digits", recipe=recipe))


@pytest.mark.parametrize("recipe", ["quick", "seed"])
def test_frozen_tensors_are_bit_identical_after_each_phase(
    options: TrainOptions, recipe: str
) -> None:
    job = begin(under(options, recipe))
    keeper = Keeper(job.state, job.folder)
    before = {name: value.clone() for name, value in job.network.net.state_dict().items()}
    PhaseJob(job, 0).do(keeper)
    after = job.network.net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    PhaseJob(job, 1).do(keeper)
    first = job.network.layers.index(first_layer(job.network, job.recipe.finetune.train_from))
    frozen = job.network.layers[:first]
    after = job.network.net.state_dict()
    changed = {
        name.rsplit(".", 1)[0] for name in before if not torch.equal(before[name], after[name])
    }
    assert not changed & set(frozen)
    thawed_norms = {name for name in job.network.layers[first:] if ".bn" in name}
    assert thawed_norms <= changed


def test_training_from_the_cache_equals_training_without_it(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Small steps: Adam would blow rounding up to visible size on gradients near nothing.
    options = dataclasses.replace(options, epochs=(2, 2), lr=(1e-3, 1e-5))
    cached = run.train(options)
    assert any("features" in str(path) for path, _ in cache_entries())
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "second"))
    monkeypatch.setenv("THAWNET_CACHE_GB", "0")
    live = run.train(options)
    assert not any("features" in str(path) for path, _ in cache_entries())
    for one, other in zip(epochs_of(cached), epochs_of(live), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=2e-3)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=2e-3)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which parts a run opens, in order with the phases it finishes."""
    events: list[str] = []

    def opened(
        data: str,
        data_dir: Path | None,
        watch: Watch,
        tell: Callable[[str], None],
        asked: Reading,
    ) -> Source:
        source = open_source(data, data_dir, watch, tell, asked)

        def open_part(part: str) -> Items:
            events.append(part)
            return source.open_part(part)

        return dataclasses.replace(source, open_part=open_part)

    def saved(state: checkpoint.RunState) -> None:
        if state.phase and f"phase {state.phase}" not in events:
            events.append(f"phase {state.phase}")

    monkeypatch.setattr(setup, "open_source", opened)
    after_each_save(monkeypatch, saved)
    return events


@pytest.fixture
def parted(options: TrainOptions, photos: Callable[..., Path], tmp_path: Path) -> TrainOptions:
    photos({"a": 24, "b": 24}, "parted/train")
    photos({"a": 6, "b": 6}, "parted/test", start=100)
    return dataclasses.replace(options, data=str(tmp_path / "parted"))


def test_no_test_never_opens_the_test_part(
    parted: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = watched(monkeypatch)
    outcome = run.train(dataclasses.replace(parted, no_test=True))
    assert "test" not in events
    assert outcome.line.startswith("validation accuracy: ")
    assert set(outcome.result.metrics) == set(outcome.result.data.content) == {"validation"}
    predictions = read_predictions(outcome.folder / "predictions.csv")
    assert predictions.part == "validation"
    assert all((Path(parted.data) / image).is_file() for image in predictions.images)


def test_test_part_is_opened_once_after_the_last_epoch(
    parted: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = watched(monkeypatch)
    outcome = run.train(parted)
    assert events == ["train", "phase 1", "phase 2", "test"]
    assert outcome.result.metrics["test"].images == 12


def test_run_folder_holds_what_the_contract_says(options: TrainOptions) -> None:
    outcome = run.train(options)
    assert outcome.folder == Path("runs/photos-quick-1")
    names = {path.name for path in outcome.folder.iterdir()}
    assert names == {
        "recipe.toml",
        "log.jsonl",
        "history.png",
        "result.json",
        "predictions.csv",
        "checkpoint",
        "bundle",
    }
    written = load_recipe(str(outcome.folder / "recipe.toml"))
    assert written.finetune.epochs == 1
    assert written.weights == options.weights
    result = outcome.result
    assert read_result(outcome.folder) == result
    low, high = result.metrics["test"].interval_95
    assert low <= result.metrics["test"].accuracy <= high
    model = json.loads((outcome.folder / "bundle" / "model.json").read_text())
    assert model["classes"] == ["a", "b", "c"]
    assert model["preprocess"]["size"] == 32
    assert model["temperature"] == result.temperature != 1.0
    errors = result.metrics["test"].expected_calibration_error
    assert errors.calibrated != errors.uncalibrated


def test_temperature_is_fitted_on_validation_alone(
    parted: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted_on: list[int] = []

    def fit(_logits: object, labels: NDArray[np.int64]) -> float:
        fitted_on.append(len(labels))
        return 1.5

    monkeypatch.setattr(outputs, "helpful_temperature", fit)
    result = run.train(parted).result
    assert result.temperature == 1.5
    assert fitted_on == [result.metrics["validation"].images]
    # `seed` validates on the test part, from which nothing may be learned.
    assert run.train(under(parted, "seed")).result.temperature == 1.0
    assert len(fitted_on) == 1


def test_predictions_name_each_measured_image_and_give_the_quoted_accuracy(
    parted: TrainOptions,
) -> None:
    (Path(parted.data) / "test" / "a" / "000.png").write_bytes(b"broken")  # first of its part
    outcome = run.train(parted)
    predictions = read_predictions(outcome.folder / "predictions.csv")
    assert predictions.part == "test"
    expected = sorted(f"test/{name}/{number}.png" for name in "ab" for number in range(100, 106))
    assert predictions.images == expected
    assert predictions.classes == [name.split("/")[1] for name in expected]
    assert predictions.hits.mean() == pytest.approx(outcome.result.metrics["test"].accuracy)


def store_of(folder: Path) -> ImageStore:
    source = open_source(str(folder))
    return open_store(source.open_part("train"), Reduction(40), lambda done: None, 1)


def test_content_of_a_part_is_its_images_and_classes_in_any_order(
    photos: Callable[..., Path],
) -> None:
    folder = photos({"a": 3, "b": 3})
    whole = store_of(folder)
    name = content_of(whole, ("a", "b"))
    assert content_of(whole.subset(np.arange(6)[::-1]), ("a", "b")) == name
    assert content_of(whole.subset(np.arange(5)), ("a", "b")) != name
    assert content_of(whole, ("a", "c")) != name
    (folder / "a" / "000.png").write_bytes((folder / "a" / "001.png").read_bytes())
    assert content_of(store_of(folder), ("a", "b")) != name


def test_own_recipe_gives_the_same_bits_and_another_seed_others_from_the_same_caches(
    options: TrainOptions,
) -> None:
    first = run.train(options)
    entries = cache_entries()
    recipe = str(first.folder / "recipe.toml")
    again = TrainOptions(data=options.data, recipe=recipe, precision="float32", compile="no")
    second = run.train(again)
    assert second.folder == Path("runs/photos-quick-2")
    assert same_bits(first, second)
    other = tensors_of(run.train(dataclasses.replace(options, seed=1)))
    assert cache_entries() == entries
    name = "classifier.weight"
    assert not torch.equal(tensors_of(first)[name], other[name])


@pytest.fixture
def always_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save the state after every step, every evaluated batch and every epoch."""
    monkeypatch.setenv("THAWNET_KEEP_SECONDS", "0")


def often(folder: Path) -> str:
    """Return `quick` as a file, with validations behind half the steps of an epoch, or fewer."""
    return quick_with(folder, {"validate_every": 25}, {"validate_every": 25})


def test_validation_within_an_epoch_changes_nothing_but_the_log(
    options: TrainOptions, tmp_path: Path
) -> None:
    once = run.train(options)
    outcome = run.train(dataclasses.replace(options, recipe=often(tmp_path)))
    assert same_bits(once, outcome)
    rows = epochs_of(outcome)
    assert [row["epoch"] for row in rows] == [0.5, 1, 1.5, 2]
    assert [row["phase"] for row in rows] == [0, 0, 1, 1]
    measured = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    for row, whole in zip(rows[1::2], epochs_of(once), strict=True):
        assert [row[name] for name in measured] == [whole[name] for name in measured]
    assert rows[0]["train_loss"] != rows[1]["train_loss"]


@pytest.mark.usefixtures("always_kept")
def test_a_batch_that_does_not_fit_a_gpu_is_halved_with_its_rate_and_kept_so(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(state: checkpoint.RunState) -> None:
        if (state.phase, state.step) == (1, 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tail, "fits", lambda _tail, read: len(read()) <= 8)
        after_each_save(patch, stop)
        with pytest.raises(InterruptedRunError) as stopped:
            run.train(options)
    said = capsys.readouterr().err
    assert said.count("batch 8, learning rate 0.000") == 2
    assert said.count("memory does not hold a step on 16 images") == 2
    # Gone on with where everything fits: the batch is the one that the phase began with.
    folder = str(stopped.value).rpartition(" ")[2]
    assert epochs_of(run.train(TrainOptions(resume=folder, no_report=True)))
    assert "batch 8, eager" in capsys.readouterr().err


def test_a_gpu_that_holds_no_step_is_told_in_a_sentence(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tail, "fits", lambda _tail, _read: False)
    with pytest.raises(RunError, match="does not hold a step on 8 images of 32 px; choose a small"):
        run.train(options)


def test_a_gpu_that_is_full_later_says_how_to_go_on(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2 GiB.")

    monkeypatch.setattr(phase, "evaluate", full)
    with pytest.raises(RunError, match=r"memory is full .Tried to allocate 2 GiB.*--resume runs"):
        run.train(options)


@pytest.mark.usefixtures("always_kept")
@pytest.mark.parametrize("recipe", [*PRESETS, "often"])
def test_run_stopped_at_any_save_ends_with_the_bits_of_an_uninterrupted_one(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: str
) -> None:
    name = often(tmp_path) if recipe == "often" else recipe
    options = dataclasses.replace(under(options, name), epochs=(1, 2))
    saves: list[tuple[int, int, int]] = []
    with monkeypatch.context() as patch:
        after_each_save(patch, lambda state: saves.append((state.phase, state.epoch, state.step)))
        outcome = run.train(options)
    trained_both_phases(outcome, [0, 0, 1, 1, 1, 1] if recipe == "often" else [0, 1, 1])
    epochs = [row["epoch"] for row in epochs_of(outcome)]
    assert epochs == ([0.5, 1, 1.5, 2, 2.5, 3] if recipe == "often" else [1, 2, 3])
    assert {where[:2] for where in saves} == {(0, 0), (1, 0), (1, 1), (2, 0)}
    assert len(set(saves)) >= 10  # in the middle of epochs, too
    call, behind = options, 0
    for number in (4, len(saves) - 8, len(saves) - 1):
        with monkeypatch.context() as patch:
            saved = stop_after(patch, number - behind)
            with pytest.raises(InterruptedRunError):
                run.train(call)
        assert saved[-1] == saves[number - 1]
        call, behind = TrainOptions(resume="", no_report=True), number - 2  # two as it starts
    resumed = run.train(call)
    assert same_bits(outcome, resumed)
    assert [row["epoch"] for row in epochs_of(resumed)] == epochs


def test_stop_says_what_is_kept_and_how_to_go_on(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 3)  # two are of the start, the third of phase 1
    with pytest.raises(InterruptedRunError) as caught:
        run.train(options)
    assert caught.value.exit_code == 130
    assert str(caught.value) == (
        "stopped; 1 epoch is kept: thawnet train --resume runs/photos-quick-1"
    )


def test_finished_run_is_not_done_again(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run.train(options)
    monkeypatch.setattr(run, "setup", None)
    again = run.train(TrainOptions(resume=str(first.folder)))
    assert again.lines == first.lines


def test_run_is_worked_on_by_one_process_at_a_time(options: TrainOptions) -> None:
    job = begin(options)
    with run_folder.claimed(job.folder), pytest.raises(RunError, match="another process is work"):
        run.train(TrainOptions(resume=str(job.folder)))


def test_run_folder_on_a_mount_without_locks_is_held_by_nobody_which_is_said(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lock(_lock: object, **_how: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    job = begin(options)
    monkeypatch.setattr(filelock.FileLock, "acquire", lock)
    with run_folder.claimed(job.folder):
        assert "this disk knows no locks; let no other process resume" in capsys.readouterr().err


def test_flags_beside_resume_are_refused(options: TrainOptions) -> None:
    job = begin(options)
    with pytest.raises(UsageError, match=r"--seed '5': --resume continues with what the run"):
        run.train(TrainOptions(resume=str(job.folder), seed=5))
    with pytest.raises(UsageError, match="DATA 'digits'"):
        run.train(TrainOptions(data="digits", resume=str(job.folder)))


def patient(
    options: TrainOptions, folder: Path, patience: int, validate_every: int = 0
) -> TrainOptions:
    """Return a call whose phases of 1 and 9 epochs stop early."""
    head = {"epochs": 1, "min_steps": 0, "patience": 0}
    finetune = {"epochs": 9, "min_steps": 0, "patience": patience}
    recipe = quick_with(folder, head, finetune | {"validate_every": validate_every})
    return dataclasses.replace(options, recipe=recipe, epochs=None)


def graded(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Let the validation of each epoch, in order, find these accuracies."""
    remaining = iter(accuracies)

    def evaluate(*arguments: Any) -> Any:
        metrics, logits = loop.evaluate(*arguments)
        return dataclasses.replace(metrics, accuracy=next(remaining, 0.0)), logits

    monkeypatch.setattr(phase, "evaluate", evaluate)


@pytest.mark.usefixtures("always_kept")
def test_phase_stops_early_and_keeps_its_best_epoch_also_when_it_is_resumed(
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = patient(options, tmp_path, 2)
    saved: dict[int, dict[str, torch.Tensor]] = {}

    def remember(state: checkpoint.RunState) -> None:
        if state.best is not None:
            saved[len(state.history)] = state.best["network"]

    grades = [0.1, 0.2, 0.5, 0.4, 0.3, 0.9]
    with monkeypatch.context() as patch:
        after_each_save(patch, remember)
        graded(patch, grades)
        outcome = run.train(call)
    assert len(epochs_of(outcome)) == 5  # two worse ones after the best, the third epoch
    kept = r"kept epoch 3, the most accurate on .*: 50\.00 %, .*; stopped after 2 epochs w"
    assert re.search(kept, capsys.readouterr().err)
    assert torch.equal(tensors_of(outcome)["conv_head.weight"], saved[3]["conv_head.weight"])

    def stop(state: checkpoint.RunState) -> None:
        if len(state.history) == 4 and state.step == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        after_each_save(patch, stop)
        graded(patch, grades)
        with pytest.raises(InterruptedRunError):
            run.train(call)
    graded(monkeypatch, grades[4:])
    assert same_bits(outcome, run.train(TrainOptions(resume="")))


def test_best_validation_within_an_epoch_is_kept_and_patience_counts_whole_ones(
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = patient(options, tmp_path, 1, validate_every=25)
    graded(monkeypatch, [0.1, 0.2, 0.3, 0.5, 0.4, 0.3, 0.3, 0.9])  # the head's first
    outcome = run.train(call)
    rows = epochs_of(outcome)
    assert [row["epoch"] for row in rows] == [1, 1.5, 2, 2.5, 3, 3.5, 4]
    assert [row["epoch"] for row in rows if row.get("kept")] == [1, 2.5]
    assert re.search(
        r"kept epoch 2\.5, the most accurate on .*; stopped after 1 epoch w",
        capsys.readouterr().err,
    )


def test_stop_that_torch_turned_into_its_own_error_is_still_a_stop(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(state: checkpoint.RunState) -> None:
        if not state.history:
            return
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("unexpected pos 4243904 vs 4243800")  # noqa: B904 - as torch does

    after_each_save(monkeypatch, stop)
    with pytest.raises(InterruptedRunError, match=r"^stopped; "):
        run.train(options)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"data": "tiny"}, DataError, "too few training images to validate on"),
        ({"train_from": "blocks.9"}, UsageError, "--train-from 'blocks.9'"),
    ],
)
def test_run_that_cannot_begin_leaves_no_folder(
    options: TrainOptions,
    photos: Callable[..., Path],
    changes: dict[str, str],
    kind: type[Exception],
    message: str,
) -> None:
    photos({"a": 2, "b": 2}, "work/tiny")
    with pytest.raises(kind, match=message):
        run.train(dataclasses.replace(options, **changes))
    assert not Path("runs").exists()


def test_output_folder_with_another_run_is_left_alone(options: TrainOptions) -> None:
    folder = Path("mine")
    folder.mkdir()
    (folder / "result.json").write_text("precious")
    with pytest.raises(RunError, match="--out 'mine': the folder already holds a run"):
        run.train(dataclasses.replace(options, out=folder))
    assert (folder / "result.json").read_text() == "precious"


def test_full_disk_keeps_the_last_epoch_and_says_so(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    plain = torch.save

    def save(*arguments: Any) -> None:
        written.append(1)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(*arguments)

    monkeypatch.setattr(torch, "save", save)
    message = "the disk is full; free some space and start again: thawnet train --resume"
    with pytest.raises(RunError, match=message):
        run.train(options)
    assert run.train(TrainOptions(resume="")).line.startswith("test accuracy")


def test_broken_images_are_named_on_screen_and_listed_in_the_run(
    options: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(options.data) / "a" / "zero.jpg").write_bytes(b"")
    outcome = run.train(options)
    listed = json.loads((outcome.folder / "broken.json").read_text())
    assert listed == [{"image": "a/zero.jpg", "reason": "the file is empty (0 bytes)"}]
    assert "a/zero.jpg: the file is empty" in capsys.readouterr().err


def test_every_epoch_is_shuffled_anew_by_the_seed(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(monkeypatch, phase, "batches")
    outcome = run.train(dataclasses.replace(options, epochs=(2, 2), seed=5))
    keys = [tuple(key) for _count, _plan, key, _ranks in calls]
    assert len(keys) == len(set(keys)) == epochs_of(outcome)[-1]["epoch"]
    assert {key[0] for key in keys} == {5}


def test_learning_rate_goes_on_from_epoch_to_epoch(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = calls_of(monkeypatch, loop, "rate")
    run.train(dataclasses.replace(options, epochs=(2, 2)))
    # A step asks once for each group of parameters.
    steps = [step for step, _ in itertools.groupby((step, of) for _plan, step, of in calls)]
    in_phase = [steps[0][1], steps[-1][1]]
    assert min(in_phase) > 2
    assert steps == [(step, of) for of in in_phase for step in range(of)]
