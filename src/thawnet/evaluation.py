"""Evaluation of a trained network on labelled images, in ONNX Runtime."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle.format import are_among, read_description, read_trained_on
from .bundle.model import Model, load
from .core.errors import DataError, ImageError, UsageError, suggest
from .core.packages import told_when_missing
from .core.text import command_line, counted, duration
from .data.items import PARTS, Items, Raw, Source, Watch, unwatched
from .data.listing import read_or_reason
from .data.reading import AS_IT_IS, Reading
from .data.shares import Shares
from .data.sources.open import open_source
from .data.splits import arrange, divide
from .metrics.paired import Pairs, count_pairs
from .metrics.result import how_opened
from .metrics.summary import Evaluation, Unreadable, sum_up
from .net.published import Tell

NAMED = 3  # unknown classes in a message


def evaluate(
    model: Model | str | Path,
    data: str,
    data_dir: Path | None = None,
    part: str | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda text: None,
    reading: Reading = AS_IT_IS,
) -> Evaluation:
    """Measure a network on labelled images; torch need not be installed.

    model: a run folder, a bundle, or a model opened by `load`, which keeps its number of threads.
    data, data_dir: as for `train`; classes are matched to the model's by name. part: 'train', 'val'
    or 'test', of the data or as the run held it back from the same data; by default test, or
    everything if the data has no test part. watch: shows progress. tell: receives lines for the
    user. reading: how to read the data if its form leaves a choice.
    Raises BundleError as `load` does; UsageError for a missing part, or for a package that the data
    needs and that is not installed; DataError if the data cannot be opened, has a class that the
    model does not know, or has no readable image.
    """
    if not isinstance(model, Model):
        model = load(model)
    known = read_trained_on(read_description(model.path))
    with told_when_missing(f"evaluating on '{data}'"):
        with _told_how_it_was_read(model, reading):
            source = open_source(data, data_dir, watch, tell, reading)
            positions = _positions(source, model.classes)
        for note in source.notes:
            tell(note)
        chosen = _by_default(source) if part is None else [part]
        parts = [
            source.open_part(name) if name in source.parts else _held_back(model, source, name)
            for name in chosen
        ]
    count = sum(map(len, parts))
    whole = part is None and "test" not in chosen
    tell(
        f"evaluating on all of {source.name}, which has no test part: {counted(count, 'image')}"
        if whole
        else f"evaluating on the {chosen[0]} part of {source.name}: {counted(count, 'image')}"
    )
    if not count:
        raise DataError(f"the {chosen[0]} part of '{source.name}' holds no images")
    started = time.perf_counter()
    with watch("evaluating", count) as advance:
        rows, logits, unfamiliar, unreadable = _run(model, parts, advance)
    spent = time.perf_counter() - started
    tell(f"{counted(count, 'image')} in {duration(spent)}, {count / spent:,.0f} images/s")
    if not len(rows):
        first = unreadable[0]
        raise DataError(
            f"none of the {count:,} images can be read; the first, '{first.image}': {first.reason}"
        )
    labels = np.concatenate([items.labels for items in parts])[rows]
    hashes = np.concatenate([items.hashes for items in parts])[rows]
    return sum_up(
        logits,
        positions[labels],
        are_among(hashes, known),
        unfamiliar,
        model=str(model.path),
        backbone=model.backbone,
        classes=model.classes,
        temperature=model.temperature,
        data=source.name,
        part="all" if whole else chosen[0],
        superclasses=source.superclasses,
        unreadable=unreadable,
    )


def pair_up(
    first: Path,
    second: Path,
    data: str,
    data_dir: Path | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda text: None,
    reading: Reading = AS_IT_IS,
) -> Pairs:
    """Measure two networks on the same labelled images, and count which of them are right.

    first, second: run folders or bundles. The rest is as for `evaluate`. They are measured on the
    test part or, if there is none, on everything. Images that either was trained or chosen on are
    left out. Raises what `evaluate` raises, and DataError if no image is left.
    """
    models = [load(first), load(second)]
    with told_when_missing(f"comparing on '{data}'"):
        source = open_source(data, data_dir, watch, tell, reading)
        parts = [source.open_part(name) for name in _by_default(source)]
    labels = np.concatenate([items.labels for items in parts])
    hashes = np.concatenate([items.hashes for items in parts])
    hits = np.zeros((2, len(labels)), bool)
    read, unseen = np.ones(len(labels), bool), np.ones(len(labels), bool)
    for number, model in enumerate(models):
        name = "AB"[number]
        positions = _positions(source, model.classes, name)
        with watch(f"evaluating {name}", len(labels)) as advance:
            rows, logits, _, _ = _run(model, parts, advance)
        hits[number, rows] = logits.argmax(1) == positions[labels[rows]]
        read &= np.isin(np.arange(len(labels)), rows)
        unseen &= ~are_among(hashes, read_trained_on(read_description(model.path)))
    if not read.any():
        raise DataError(f"none of the {len(labels):,} images of '{source.name}' can be read")
    chosen = read & unseen
    if not chosen.any():
        raise DataError(
            f"A or B learned from each of the {counted(int(read.sum()), 'image')} of "
            f"'{source.name}', so they say nothing of which is better; give photos that neither "
            "learned from, or train both with --test-share 0.2 and give the larger run's photos"
        )
    left_out = int((read & ~chosen).sum())
    if left_out:
        tell(f"{counted(left_out, 'image')} left out, from which A or B learned")
    return count_pairs(hits[0, chosen], hits[1, chosen])


@contextmanager
def _told_how_it_was_read(model: Model, reading: Reading) -> Iterator[None]:
    """Add the reading options of the network's own run to a DataError."""
    try:
        yield
    except DataError as error:
        opened = how_opened(model.path)
        fields = {} if opened is None or reading != AS_IT_IS else opened.reading
        flags = [
            (f"--{name.replace('_', '-')}", *(() if value is True else (value,)))
            for name, value in fields.items()
            if value
        ]
        if not flags:
            raise
        words = command_line(*(word for flag in flags for word in flag))
        raise DataError(f"{error}; the network was trained with {words}") from error


def _positions(
    source: Source, classes: Sequence[str], name: str = "the model"
) -> NDArray[np.int64]:
    """Return the position of each of the data's classes among the model's; name: for errors."""
    positions = {name: position for position, name in enumerate(classes)}
    unknown = [name for name in source.classes if name not in positions]
    if unknown:
        names = ", ".join(f"'{name}'" for name in unknown[:NAMED])
        if len(unknown) > NAMED:
            names += f" and {len(unknown) - NAMED:,} more"
        raise DataError(
            f"{name} does not know {len(unknown):,} of the {len(source.classes):,} classes of "
            f"'{source.name}': {names}; for '{unknown[0]}' {suggest(unknown[0], classes)}; "
            "if these are other names, give --class-names FILE"
        )
    return np.array([positions[name] for name in source.classes], np.int64)


def _by_default(source: Source) -> list[str]:
    """Return the names of the parts to measure on: test, or all if there is none."""
    there = [name for name in PARTS if name in source.parts]
    return ["test"] if "test" in there else there


def _held_back(model: Model, source: Source, part: str) -> Items:
    """Return the part that a network's run held back, or would hold back from this data.

    A part is drawn by content, so added images do not move the others.
    Raises UsageError if the run held none back.
    """
    there = " and ".join(name for name in PARTS if name in source.parts)
    facts = read_description(model.path).facts
    try:
        shares, own_test = Shares.of(facts["recipe"]), bool(facts["data"]["own_test"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--part {part}: '{source.name}' has only {there}, and '{model.path}' does not say "
            "what its run held back"
        ) from error
    lists = arrange(source, shares, own_test)
    if part == "test" and lists.test is not None:
        return lists.test()
    if part == "val" and not lists.folded:
        return divide(lists.train, lists.val, shares)[1]
    raise UsageError(
        f"--part {part}: '{source.name}' has only {there}, and the run held no {part} part back"
        + (": each image was tested by a network that did not learn from it" * lists.folded)
    )


def _run(
    model: Model, parts: Sequence[Items], advance: Callable[[int], None]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None, list[Unreadable]]:
    """Run the network on every image of some parts, one part after the other.

    Returns the positions of the readable images, (n,); their logits, (n, classes); which of them
    are unfamiliar, (n,), or None if the model cannot tell; and the unreadable images.
    """
    count = sum(map(len, parts))
    rows = np.empty(count, np.int64)
    logits = np.empty((count, len(model.classes)), np.float32)
    unfamiliar = np.empty(count, bool)
    unreadable: dict[int, Unreadable] = {}
    waiting: deque[tuple[int, str]] = deque()  # row and name of images handed to the model

    def images() -> Iterator[Raw]:
        every_image = ((items, position) for items in parts for position in range(len(items)))
        for row, (items, position) in enumerate(every_image):
            raw = read_or_reason(items, position)
            if isinstance(raw, str):
                unreadable[row] = Unreadable(items.names[position], raw)
                advance(1)
            else:
                waiting.append((row, items.names[position]))
                yield raw

    done = 0
    for outputs in model.stream_outputs(images()):
        row, name = waiting.popleft()
        advance(1)
        if isinstance(outputs, ImageError):
            unreadable[row] = Unreadable(name, str(outputs))
            continue
        rows[done], logits[done] = row, outputs.logits[0]
        if model.unfamiliar is not None and outputs.unfamiliarity is not None:
            unfamiliar[done] = outputs.unfamiliarity[0] > model.unfamiliar.above
        done += 1
    return (
        rows[:done],
        logits[:done],
        None if model.unfamiliar is None else unfamiliar[:done],
        [unreadable[row] for row in sorted(unreadable)],
    )
