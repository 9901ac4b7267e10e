"""The command `doctor`: check this machine, and estimate what a run would take on it."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .. import embedded
from ..core import console
from ..core.columns import aligned
from ..core.control_group import cpu_quota
from ..core.errors import ThawnetError, UsageError
from ..core.files import cache_entries, cache_folder
from ..core.flags import Switch, option
from ..core.memory import available_memory, keep_freed_memory, total_memory
from ..core.packages import INSTALL, TRAIN_PACKAGES, missing
from ..core.text import command_line, counted
from ..recipe import ON_GPU, PRESETS, TrainOptions, chosen_flags

if TYPE_CHECKING:
    from ..forecast import Forecast

LEAST = 2e9  # bytes of memory and of disk, under which even small jobs may fail
INTERPRETER = 0.5  # seconds from process start to the first line of a command
COMPARED = ("backbone", "time", "head alone", "memory", "disk", "input", "trains from")
HEADINGS = ("recipe", "time", "memory", "disk", "input", "trains from", "epochs")
VARIABLES = (
    *("THAWNET_CACHE", "THAWNET_CACHE_GB", "THAWNET_KEEP_SECONDS"),
    *("THAWNET_MIRROR", "HF_ENDPOINT"),
)


@dataclass(frozen=True)
class DoctorOptions:
    """Check this machine; with DATA, estimate minutes and memory.

    Takes every option of `train`. Parts of a run are timed on a few of its images, which takes up
    to two minutes. The test images are counted, not opened. No run is started; data and weights are
    downloaded if they are not there yet.
    """

    train: Annotated[TrainOptions, tyro.conf.arg(name="")] = TrainOptions(data="")  # noqa: RUF009 - frozen
    backbones: Annotated[tuple[str, ...], option("NAME ...")] = ()
    """Compare what these networks would take on DATA. Nothing is downloaded: they are timed with
    random weights."""
    json: Switch = False
    """Print everything as one JSON object."""


@dataclass(frozen=True)
class Check:
    """A line of the checklist."""

    name: str
    found: str
    todo: str = ""
    """The remedy, '' if all is well."""
    fatal: bool = False
    """Whether it rules out training."""


@dataclass(frozen=True)
class Row:
    """A recipe, or a network to compare, with its forecast or the reason why it cannot run."""

    name: str
    forecast: Forecast | None
    problem: str = ""


def doctor(options: DoctorOptions) -> None:
    """Print the checklist and, for DATA, the forecasts; the last line sums up.

    Raises ThawnetError if DATA or a flag is wrong; what this machine lacks is only reported.
    """
    train = options.train
    if train.resume is not None:
        raise UsageError("--resume: doctor looks at new runs; leave it out")
    if options.backbones:
        _require_comparable(options)
    others = Others()
    rows: list[Row] = []
    data = ""
    if train.data and not missing(TRAIN_PACKAGES):
        data, rows = _forecasts(train, options.backbones)
    checks = list(checklist(train, others))
    if options.backbones and rows:
        ready, summary = _quickest(train, checks, rows)
    else:
        ready, summary = _verdict(train, checks, rows)
    if options.json:
        content = {
            "ready": ready,
            "summary": summary,
            "checks": [asdict(check) for check in checks],
            "data": data,
            "forecasts": [_as_dict(row) for row in rows],
        }
        console.result(json.dumps(content, indent=2, ensure_ascii=False))
        return
    table = _comparison(data, rows) if options.backbones else _table(data, rows)
    for line in (*_checks(checks), *table, summary):
        console.result(line)


def _require_comparable(options: DoctorOptions) -> None:
    if not options.train.data:
        last = options.backbones[-1]
        taken = f" '{last}' was taken for a network," if Path(last).exists() else ""
        raise UsageError(
            f"--backbones:{taken} name the DATA first, as in `thawnet doctor photos --backbones "
            f"{options.backbones[0]}`"
        )
    for flag in ("backbone", "weights"):
        if getattr(options.train, flag) is not None:
            raise UsageError(f"--{flag}: --backbones compares by random weights; leave one out")


# --- the checklist -------------------------------------------------------------------------------


def checklist(options: TrainOptions, others: Others) -> Iterator[Check]:
    """Yield the checks of this machine; those of torch only if it is installed."""
    yield Check("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield _packages()
    if not missing(["torch"]):
        yield from _torch(options)
    busy = others.busy()
    if busy is not None:
        yield _load(busy)
    yield _memory()
    yield _disk("cache disk", cache_folder(), "point THAWNET_CACHE at a larger disk")
    yield _disk(
        "runs disk", options.out or Path("runs"), "give a folder on a larger disk with --out"
    )
    sizes = [size for _, size in cache_entries()]
    yield Check(
        "cache", f"{counted(len(sizes), 'entry')}, {_gigabytes(sum(sizes))} (thawnet cache list)"
    )
    if not missing(["huggingface_hub"]):
        yield _hub(options)
    values = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    yield Check("variables", ", ".join(values) or f"none of {', '.join(VARIABLES)} is set")
    if (embedded.BUNDLE / "model.json").is_file():
        yield Check("embedded", f"{embedded.BACKBONE} for {embedded.BUNDLE.name}")
    else:
        yield Check("embedded", "the package's own network is missing", "install thawnet again")


def _packages() -> Check:
    lacking = missing(TRAIN_PACKAGES)
    known = [f"{name} {_version(name)}" for name in ("torch", "timm") if name not in lacking]
    if not lacking:
        return Check("packages", ", ".join([*known, "all that training needs"]))
    packages = ", ".join([*known, f"not installed: {', '.join(lacking)}"])
    return Check("packages", packages, INSTALL, fatal=True)


def _torch(options: TrainOptions) -> Iterator[Check]:
    import torch

    from ..training.machine import COMPILE_SPEEDUP, choose_device, decide, describe

    device = choose_device(options.device)
    machine = decide(device, options.precision or "auto", options.compile)
    facts = describe()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    others = [name for name in available if available[name] and name != device]
    named = facts["gpu"] if device == "cuda" else facts["processor"]
    offered = f"; also there: {', '.join(others)} (--device)" if others else ""
    yield Check("device", f"{device}: {named}{offered}")
    slow = device == "cpu" and machine.dtype == "float32"
    why = ": no fast bfloat16 here" if slow and options.precision in (None, "auto") else ""
    yield Check("precision", f"{machine.dtype}{why}")
    if machine.compile == "no" and options.compile == "auto":
        todo = f"install g++ or clang: long runs are up to {COMPILE_SPEEDUP} times faster with it"
        yield Check("compiler", "none found", todo if device == "cpu" else "")
    else:
        yield Check("compiler", f"torch.compile: {machine.compile}")
    yield _cores(machine.threads)


def _cores(threads: int) -> Check:
    quota = cpu_quota()
    limit = "" if quota is None else f", of which a container's limit gives {quota:.2g}"
    return Check("cores", f"{os.cpu_count()}{limit}, {counted(threads, 'thread')} to compute with")


class Others:
    """Cores kept busy by other programs since this object was created."""

    def __init__(self) -> None:
        self._before = self._reading()

    def busy(self) -> float | None:
        """Return the mean number of busy cores, None if the system does not report it."""
        now = self._reading()
        if self._before is None or now is None:
            return None
        seconds, computed = (end - start for start, end in zip(self._before, now, strict=True))
        return max(0.0, computed / max(seconds, 0.1))

    @staticmethod
    def _reading() -> tuple[float, float] | None:
        """Return the time and the CPU seconds of all other processes (proc(5)), None if unknown."""
        try:
            line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
            user, nice, system = (int(value) for value in line.split()[1:4])
            ticks = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):  # not Linux
            return None
        return time.perf_counter(), (user + nice + system) / ticks - time.process_time()


def _load(busy: float) -> Check:
    """Judge the load of other programs, which slows threads that wait for each other most."""
    cores = os.cpu_count() or 1
    todo = "stop what else computes and ask again: minutes are right only for as long as it does"
    load = f"other programs keep {busy:.1f} of {cores} cores busy"
    return Check("load", load, todo if busy > cores / 8 else "")


def _memory() -> Check:
    total, free = total_memory(), available_memory()
    if total is None:
        return Check("memory", "this system does not say")
    if free is None:
        return Check("memory", _gigabytes(total))
    todo = "close other programs" if free < LEAST else ""
    return Check("memory", f"{_gigabytes(total)}, {_gigabytes(free)} available", todo)


def _disk(name: str, folder: Path, todo: str) -> Check:
    free = _free(folder)
    return Check(name, f"{_gigabytes(free)} free at {folder}", todo if free < LEAST else "")


def _free(folder: Path) -> int:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _hub(options: TrainOptions) -> Check:
    from ..data.sources.cifar import LAYOUTS
    from ..net.http import FetchError
    from ..net.hub import endpoint, require_answer

    try:
        require_answer()
    except FetchError as error:
        lacking = []
        if options.weights in (None, "imagenet"):
            lacking.append("--weights FILE")
        if options.data in LAYOUTS and options.data_dir is None:
            lacking.append("--data-dir FOLDER")
        todo = (
            f"give {' and '.join(lacking)}, or a mirror with HF_ENDPOINT; `thawnet train digits` "
            "needs neither"
        )
        found = f"{endpoint()} cannot be reached ({error})"
        return Check("hub", found, todo if lacking and options.data != "digits" else "")
    return Check("hub", f"{endpoint()} answers")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


# --- the forecasts -------------------------------------------------------------------------------


def _forecasts(options: TrainOptions, backbones: Sequence[str]) -> tuple[str, list[Row]]:
    """Open DATA as `train` does; return its description and a forecast of each recipe.

    The default recipe comes first; if --recipe names one, it is the only one. With backbones, that
    recipe is forecast with each of them instead.
    """
    began = time.perf_counter()
    from ..data.sources.open import open_source
    from ..data.splits import arrange, check_parts, divide
    from ..data.store import typical_image
    from ..forecast import forecast
    from ..model.weights import load_weights, random_weights
    from ..training.call import check_call, chosen, preset

    keep_freed_memory()
    recipe, machine = chosen(options)
    check_call(recipe, options)
    source = open_source(
        options.data, options.data_dir, console.progress, console.say, options.reading
    )
    check_parts(source, not options.no_test)
    lists = arrange(source, recipe.shares)
    typical = typical_image(lists.train)
    opened = INTERPRETER + time.perf_counter() - began
    names = [options.recipe or recipe.name]
    if not options.recipe and not backbones:
        general = [name for name in PRESETS if name not in ON_GPU.values()]
        offered = [preset(name, machine.device) for name in general]
        names += [name for name in offered if name != recipe.name]
    calls = {name: replace(options, recipe=name) for name in names}
    load, kind = load_weights, "recipe "
    if backbones:
        calls = {name: replace(options, backbone=name) for name in backbones}
        load, kind = random_weights, ""
    rows = []
    for name, call in calls.items():
        console.say(f"measuring for {kind}{name} ...")
        try:
            own = arrange(source, chosen(call)[0].shares)  # some cross-validate, some do not
            rows.append(Row(name, forecast(call, source, own, typical, opened, load)))
        except ThawnetError as error:
            rows.append(Row(name, None, str(error)))
    train, val = lists.train, 0
    if not lists.folded:
        train, held_back = divide(lists.train, lists.val, recipe.shares)
        val = len(held_back)
    validated = f"{val:,} to validate" if val else f"validated in {recipe.folds} folds"
    parts = ", ".join(sorted(source.parts))
    about = (
        f"{source.name}: {len(source.classes)} classes, part{'s' * (len(source.parts) > 1)} "
        f"{parts}, {len(train):,} images to train on and {validated}, "
        f"short side {typical.short} px"
    )
    return about, rows


def _verdict(
    options: TrainOptions, checks: Sequence[Check], rows: Sequence[Row]
) -> tuple[bool, str]:
    """Return whether the run can start, and the summary line."""
    fatal = next((check for check in checks if check.fatal), None)
    if fatal is not None:
        return False, f"not ready: {fatal.name}: {fatal.found}; {fatal.todo}"
    if not rows:
        return True, "ready: name your data, as in `thawnet doctor photos`, for minutes and memory"
    expected, call = rows[0].forecast, command(options)
    if expected is None:
        return False, f"not ready: {rows[0].problem}"
    memory, free = available_memory(), _free(cache_folder())
    if memory is not None and expected.memory > memory:
        return False, (
            f"not ready: `{call}` needs {_gigabytes(expected.memory)} of memory and "
            f"{_gigabytes(memory)} are available; choose a smaller --size"
        )
    if expected.written > free:
        return False, (
            f"not ready: `{call}` writes {_gigabytes(expected.written)} to {cache_folder()} and "
            f"{_gigabytes(free)} are free; point THAWNET_CACHE at a larger disk"
        )
    loaded = any(check.name == "load" and check.todo for check in checks)
    busy = ", while other programs compute as now" if loaded else ""
    most = "at most " if expected.patience else "about "
    return True, (
        f"ready: `{call}` takes {most}{_duration(expected.total)} and "
        f"{_gigabytes(expected.memory)}{busy}"
    )


def _quickest(
    options: TrainOptions, checks: Sequence[Check], rows: Sequence[Row]
) -> tuple[bool, str]:
    """Return the verdict on the quickest of the compared networks."""
    usable = [row for row in rows if row.forecast is not None]
    best = min(usable, key=lambda row: row.forecast.total if row.forecast else 0, default=rows[0])
    ready, summary = _verdict(replace(options, backbone=best.name), checks, [best])
    more = "; it is the quickest here, and its weights come from the hub or by --weights"
    return ready, summary + more * ready


def command(options: TrainOptions) -> str:
    """Return the `thawnet train` command line of these options."""
    words = ["thawnet", "train", options.data]
    for name, value in chosen_flags(options):
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else [value])
    return command_line(*words)


def _duration(seconds: float) -> str:
    """Format a duration, rounded up."""
    if seconds < 90:
        return f"{10 * math.ceil(seconds / 10)} seconds"
    if seconds < 5400:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{math.ceil(seconds / 360) / 10} hours"


def _time(seconds: float) -> str:
    """Format a duration for a column, finely enough to tell networks apart."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _as_dict(row: Row) -> dict[str, Any]:
    if row.forecast is None:
        return {"name": row.name, "problem": row.problem}
    return {
        "name": row.name,
        **asdict(row.forecast),
        "total": row.forecast.total,
        "problem": "",
    }


# --- what is printed -----------------------------------------------------------------------------


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    width = max(len(check.name) for check in checks)
    for check in checks:
        yield f"{'look' if check.todo else 'ok':<6}{check.name:<{width}}  {check.found}"
        if check.todo:
            yield f"{'':<6}{'':<{width}}  -> {check.todo}"


def _table(data: str, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield data
    forecasts = [row.forecast for row in rows if row.forecast is not None]
    for origin in dict.fromkeys(forecast.weights for forecast in forecasts):
        yield f"weights: {origin}"
    yield ""
    if forecasts:
        yield from aligned([HEADINGS, *map(_cells, forecasts)], first=0)
    for recipe in (forecast.recipe for forecast in forecasts if not forecast.cached):
        yield f"{recipe}: features do not fit the disk budget and are computed every epoch"
    yield from _problems(rows)
    yield ""


def _comparison(data: str, rows: Sequence[Row]) -> Iterator[str]:
    yield ""
    yield data
    yield ""
    cells = [
        (
            *(row.name, _time(expected.total), _time(expected.head_alone)),
            *(_gigabytes(expected.memory), _gigabytes(expected.written)),
            *(f"{expected.size} px", expected.train_from),
        )
        for row in rows
        if (expected := row.forecast) is not None
    ]
    if cells:
        yield from aligned([COMPARED, *cells])
    yield from _problems(rows)
    yield ""


def _problems(rows: Sequence[Row]) -> Iterator[str]:
    """Yield why rows have no forecast, each reason once; what rules out all is in the summary."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row.problem, []).append(row.name)
    if len(names) > 1:
        yield from (f"{', '.join(names[why])}: {why}" for why in names if why)


def _cells(forecast: Forecast) -> tuple[str, ...]:
    compiled = ", compiled" if forecast.compiled else ""
    head, *finetune = map(str, forecast.epochs)
    return (
        forecast.recipe,
        _time(forecast.total),
        _gigabytes(forecast.memory),
        _gigabytes(forecast.written),
        f"{forecast.size} px",
        forecast.train_from,
        " + ".join(["solved" if forecast.solved else head, *finetune]) + compiled,
    )
