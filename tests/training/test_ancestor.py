"""Going on from a network of one's own: what it knows is kept, and what it has seen is said."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from support.photos import draw, write_photos
from support.runs import TINY
from thawnet import job
from thawnet.core.errors import WeightsError
from thawnet.model.backbone import Network
from thawnet.recipe import TrainOptions
from thawnet.training.context import Run
from thawnet.training.ranks import ALONE
from thawnet.training.setup import setup


def test_accuracy_on_images_that_an_ancestor_learned_from_is_said_to_be_too_high(
    options: TrainOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 1), recipe="seed", train_from="upper"))
    assert "was trained or selected on" not in capfd.readouterr().err
    job.train(replace(options, weights=str(first.folder), epochs=(1, 0)))
    assert (
        f"'{first.folder}' was trained or selected on 72 of the 72 images that measure this "
        "network, so its accuracy is too high"
    ) in capfd.readouterr().err


def started_from(options: TrainOptions, ancestor: Path, names: str) -> Run:
    """Set up a run on photos of classes with these names, from the network of another run."""
    data = ancestor.parent / f"photos-{names}"
    for label, name in enumerate(names):
        for number in range(20):
            (data / name).mkdir(parents=True, exist_ok=True)
            draw(label, number).save(data / name / f"{number}.png")
    with ExitStack() as held:
        call = replace(options, data=str(data), weights=str(ancestor), out=data / "run")
        return setup(replace(call, epochs=(1, 1)), ALONE, held)


@pytest.mark.parametrize("form", ["run", "file"])
def test_known_classes_keep_their_part_of_the_head(
    form: str, options: TrainOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 1), out=tmp_path / "first"))
    file = tmp_path / "first" / "bundle" / "model.safetensors"
    weight, bias = (load_file(file)[f"classifier.{part}"] for part in ("weight", "bias"))
    run = started_from(options, first.folder if form == "run" else file, "dcb")
    assert "the weights know 2 of the 3 classes; new: d; no longer among them: a\n" in (
        capfd.readouterr().err
    )
    assert run.source.classes == ("b", "c", "d")
    head = run.network.head
    assert torch.equal(head.weight[:2], weight[1:])
    assert torch.equal(head.bias[:2], bias[1:])
    assert not torch.isin(head.weight[2], weight).any()


def test_classes_that_the_weights_do_not_know_begin_anew(
    options: TrainOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 1), out=tmp_path / "first"))
    run = started_from(options, first.folder, "xy")
    assert (
        "the weights know none of these classes (theirs: a, b, c); the head starts from scratch\n"
    ) in capfd.readouterr().err
    torch.manual_seed(run.recipe.seed)
    assert torch.equal(run.network.head.weight.cpu(), Network(TINY, 2, 32).head.weight)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"classes": "a,b"}, "its metadata is not understood"),
        ({"classes": '["a", 1]'}, "classes is no list of names"),
        ({"classes": '["a", "a"]'}, "classes names one twice"),
        ({"classes": '["a", "b"]'}, r"'classifier.weight' is \(1000, .* for their 2 classes"),
    ],
)
def test_classes_that_the_head_contradicts_are_refused(
    metadata: dict[str, str], message: str, options: TrainOptions, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tensors = dict(timm.create_model(TINY).state_dict())
    save_file(tensors, tmp_path / "w.safetensors", metadata)
    with pytest.raises(WeightsError, match=message):
        job.train(replace(options, weights=str(tmp_path / "w.safetensors")))


def test_ancestor_whose_head_goes_on_has_seen_what_that_learned_from(
    options: TrainOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 0), recipe="seed"))
    job.train(replace(options, weights=str(first.folder), epochs=(1, 1)))
    assert "was trained or selected on 12 of the 12 images" in capfd.readouterr().err


def test_ancestor_of_which_the_head_alone_learned_has_seen_nothing(
    options: TrainOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 0)))
    job.train(replace(options, weights=str(first.folder), epochs=(1, 0)))
    said = capfd.readouterr().err
    assert "was trained or selected on" not in said
    assert f"'{first.folder}' kept only its head, and a new one is computed here" in said
    assert "the weights know 3 of the 3 classes; the head is computed anew for all of them" in said


@pytest.mark.parametrize("form", ["run", "file"])
def test_what_an_ancestors_ancestor_learned_from_is_known(
    form: str, options: TrainOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The second network keeps its head alone, on layers that the first has fine-tuned."""
    call = replace(options, recipe="seed", train_from="upper", out=tmp_path / "first")
    first = job.train(replace(call, epochs=(1, 1)))
    other = write_photos(tmp_path / "other", dict.fromkeys("abc", 20), start=500)
    call = replace(options, data=str(other), epochs=(1, 0), out=tmp_path / "second")
    second = job.train(replace(call, weights=str(first.folder)))
    capfd.readouterr()
    file = second.folder / "bundle" / "model.safetensors"
    weights = second.folder if form == "run" else file
    third = job.train(replace(options, weights=str(weights), epochs=(1, 0), out=tmp_path / "third"))
    said = capfd.readouterr().err
    assert re.search(r"was trained or selected on (\d+) of the \1 images", said)
    assert "no effect" not in said
    assert third.result.weights.learned_from > 0


def test_file_of_ours_without_its_list_says_that_it_cannot_tell(
    options: TrainOptions, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 0)))
    file = shutil.copy(first.folder / "bundle" / "model.safetensors", tmp_path / "w.safetensors")
    job.train(replace(options, weights=str(file), epochs=(1, 0)))
    assert f"'{file}' does not say which images it learned from" in capfd.readouterr().err


def test_head_that_goes_on_from_a_head_says_where_the_other_layers_are_from(
    options: TrainOptions, capfd: pytest.CaptureFixture[str]
) -> None:
    first = job.train(replace(options, epochs=(1, 0)))
    job.train(replace(options, weights=str(first.folder), epochs=(1, 0), recipe="seed"))
    said = capfd.readouterr().err
    assert f"'{first.folder}' kept only its head: its other layers are those" in said
    assert "computed anew" not in said
