"""Decisions before a run reads its data: from recipe and flags, or from the resumed run."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch

from .. import embedded
from ..core import console
from ..core.errors import RunError, UsageError
from ..core.text import command_line
from ..model.names import require_model
from ..model.recognition import backbone_of
from ..model.remote_weights import located
from ..model.weights import BUNDLED, IMAGENET, KERAS
from ..recipe import ON_GPU, Recipe, TrainOptions, chosen_flags, load_recipe, resolve
from ..trackers.trackers import require_trackers
from . import checkpoint
from .checkpoint import IN_MEMORY, RunState
from .machine import Machine, choose_device, decide, obstacles, versions
from .run_folder import require_free, resumed_folder


def resolve_call(options: TrainOptions, ranks: int) -> tuple[Path | None, RunState]:
    """Return the state of a new run, or the folder of the run to resume and its state."""
    if options.resume is not None:
        folder = resumed_folder(options)
        return folder, _resumed(folder, options, ranks)
    require_free(options.out)
    recipe, machine = chosen(options)
    return None, RunState(options, recipe, machine, versions(), ranks, command=command())


def _resumed(folder: Path, options: TrainOptions, ranks: int) -> RunState:
    """Return the state of a resumed run, updated for this machine and these options."""
    state = checkpoint.load(folder)
    if state.options.data == IN_MEMORY:
        raise RunError(
            f"--resume '{folder}': its images were in memory (thawnet.Classifier) and are gone; "
            "fit again, or name another run"
        )
    _require_no_other_flags(options, state.options)
    state.options = dataclasses.replace(
        state.options,
        allow_different=options.allow_different,
        no_test=state.options.no_test or options.no_test,
    )
    lacking = obstacles(state.machine, state.compiled)
    here = versions()
    changed = [
        f"it ran with {name} {version}; this is {here.get(name)}"
        for name, version in state.versions.items()
        if here.get(name) != version
    ]
    if (lacking or changed) and not options.allow_different:
        raise RunError(
            f"--resume '{folder}': the result would not be bit-identical here: "
            f"{'; '.join(lacking + changed)}; resume where it ran, or accept that with "
            "--allow-different"
        )
    if state.ranks != ranks:
        changed.append(f"it ran in {state.ranks} processes; these are {ranks}")
    for line in lacking + changed:
        console.say(f"continuing, but {line}")
    if lacking or state.ranks != ranks:
        device = choose_device(state.options.device)
        state.machine = decide(device, state.recipe.precision, state.options.compile)
        state.ranks, state.compiled = ranks, []
    state.versions = here
    state.different += lacking + changed
    return state


def _require_no_other_flags(options: TrainOptions, original: TrainOptions) -> None:
    """Raise UsageError for flags that would have no effect beside --resume."""
    allowed = ("resume", "allow_different", "workers", "no_test")
    was = {"data": original.data, **dict(chosen_flags(original))}
    for name, value in [("data", options.data), *chosen_flags(options)]:
        if name not in allowed and value not in (TrainOptions.data, was.get(name)):
            flag = "DATA" if name == "data" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} '{value}': --resume continues with what the run was asked for "
                f"('{was.get(name)}'); leave it out, or start a new run"
            )


def require_same(state: RunState, data: str, weights: str) -> None:
    """Raise RunError unless the fingerprints of data and weights match those of a run's start."""
    if state.data != data:
        raise RunError(
            "the data is not what this run began with (images were added, removed or changed); "
            "put it back, or start a new run"
        )
    if state.weights != weights:
        raise RunError(
            "the pretrained weights are not those this run began with; "
            "put them back, or start a new run"
        )


def chosen(options: TrainOptions) -> tuple[Recipe, Machine]:
    """Return the recipe with the flags applied, and the run-time decisions for this machine."""
    device = choose_device(options.device)
    if options.device == "auto" and device == "cpu" and torch.backends.mps.is_available():
        console.say("this Mac's GPU is not used, as none was measured; try it with --device mps")
    recipe = resolve(load_recipe(preset(options.recipe, device)), options)
    machine = decide(device, recipe.precision, options.compile)
    unnamed = options.backbone is None and recipe.backbone == Recipe.backbone
    if unnamed and options.weights is not None:
        own = backbone_of(located(options.weights, console.say))
        recipe = dataclasses.replace(recipe, backbone=own or recipe.backbone)
    if (
        options.weights is None
        and options.data == "digits"
        and recipe.backbone == embedded.BACKBONE
        and recipe.weights in (IMAGENET, KERAS)
    ):
        # The data set in the package starts from the weights in the package.
        recipe = dataclasses.replace(recipe, weights=BUNDLED)
    return recipe, machine


def preset(recipe: str | None, device: str) -> str:
    """Return the name of a device's recipe: the one named, its GPU variant, or the default."""
    name = recipe or ("quick" if device == "cpu" else "full")
    return name if device == "cpu" else ON_GPU.get(name, name)


def check_call(recipe: Recipe, options: TrainOptions) -> None:
    """Raise UsageError if the backbone is unknown, or a flag contradicts the recipe."""
    if recipe.validate_on == "test" and options.no_test:
        raise UsageError(
            f"recipe '{recipe.name}' validates on the test part, which --no-test and "
            "thawnet.Classifier never open; choose another recipe"
        )
    require_model(recipe.backbone)
    require_trackers(options.tracker)


def command() -> str:
    """Return the command line as a person would type it again."""
    program = Path(sys.argv[0]).name
    begin = {"__main__.py": ["thawnet"], "main.py": ["python", "main.py"]}.get(program, [program])
    return command_line(*begin, *sys.argv[1:])
