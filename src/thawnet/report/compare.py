"""Comparison of two finished runs: their accuracy, settings and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..core.columns import aligned
from ..core.errors import RunError, UsageError
from ..core.text import printable
from ..metrics.accuracy import interval
from ..metrics.paired import Pairs, count_pairs, difference_interval, mcnemar, p_value, pair_table
from ..metrics.result import WHOLE
from .run_reader import FinishedRun, read_finished

MOST_CLASSES = 5  # listed for each run


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same images."""

    a: FinishedRun
    b: FinishedRun

    @property
    def runs(self) -> dict[str, FinishedRun]:
        """Both runs, by display name."""
        return {"A": self.a, "B": self.b}

    @cached_property
    def pairs(self) -> Pairs:
        """Numbers of images that both, only A, only B or neither classify correctly."""
        return count_pairs(self.a.predictions.hits, self.b.predictions.hits)

    @property
    def images(self) -> str:
        """Display name of the images that both were measured on."""
        return f"{self.a.result.quoted} images"


def compare(first: Path, second: Path) -> Comparison:
    """Read two run folders and compare their predictions.

    Raises UsageError if both folders are the same, RunError if a folder is not a finished run, a
    file in it is damaged, or the two were not measured on the same images.
    """
    if first.is_dir() and second.is_dir() and first.samefile(second):
        raise UsageError(f"'{first}' and '{second}' are the same run; give two different ones")
    a, b = read_finished(first), read_finished(second)
    _require_same_images(a, b)
    return Comparison(a, b)


_ANEW = "`thawnet compare A B --data LABELLED` measures both anew on the same images"


def _require_same_images(a: FinishedRun, b: FinishedRun) -> None:
    one, other = a.predictions, b.predictions
    if a.part != b.part:
        tested, untested = (a, b) if a.part == "test" else (b, a)
        raise RunError(
            f"'{tested.folder}' was measured on the test part and '{untested.folder}' was not: "
            "there are no images that both were measured on; "
            f"{_ANEW}"
        )
    if a.content != b.content:
        raise RunError(
            f"'{a.folder}' and '{b.folder}' were measured on different {a.part} images: "
            + "; ".join(_what_differs(a, b))
            + f"; {_ANEW}"
        )
    if one.images != other.images:
        mine, theirs = Counter(one.images), Counter(other.images)
        odd = min((mine - theirs) | (theirs - mine))
        raise RunError(
            f"'{a.folder}' and '{b.folder}' name the same images differently: "
            f"'{odd}' is in one of them only; {_ANEW}"
        )
    for image, name, other_name in zip(one.images, one.classes, other.classes, strict=True):
        if name != other_name:
            raise RunError(
                f"the predictions of '{a.folder}' or '{b.folder}' were changed: image '{image}' "
                f"is of class '{name}' in one and '{other_name}' in the other; train again"
            )


def _what_differs(a: FinishedRun, b: FinishedRun) -> list[str]:
    """Describe how two sets of images differ, as far as the runs record it."""
    reasons = []
    if a.result.data.name != b.result.data.name:
        reasons.append(f"data set '{a.result.data.name}' against '{b.result.data.name}'")
    counts = len(a.predictions.images), len(b.predictions.images)
    if counts[0] != counts[1]:
        reasons.append(f"{counts[0]:,} against {counts[1]:,} images")
    classes = set(a.predictions.classes), set(b.predictions.classes)
    if classes[0] != classes[1]:
        odd = min(classes[0] ^ classes[1])
        only = "first" if odd in classes[0] else "second"
        reasons.append(
            f"{len(classes[0])} against {len(classes[1])} classes, '{odd}' only in the {only}"
        )
    seeds = [run.facts.get("recipe split_seed", "unknown") for run in (a, b)]
    if seeds[0] != seeds[1]:
        reasons.append(f"split_seed {seeds[0]} against {seeds[1]}")
    return reasons or ["the same number, classes and split_seed, but other pixels or labels"]


# --- words ---------------------------------------------------------------------------------------


def table(comparison: Comparison) -> list[str]:
    """Return the comparison as lines of aligned columns."""
    a, b, pairs = comparison.a, comparison.b, comparison.pairs
    low, high = difference_interval(pairs)
    own = [run.result.scores for run in (a, b)]
    scores = [
        ("", "A", "B"),
        (f"{a.result.quoted} accuracy", *(_with_interval(run, pairs.images) for run in (a, b))),
        ("top-5 accuracy", *(f"{100 * run.top_5:.2f} %" for run in own)),
        ("balanced accuracy", *(f"{100 * run.balanced_accuracy:.2f} %" for run in own)),
        ("wall time", *(f"{run.result.seconds[WHOLE]:,.1f} s" for run in (a, b))),
        ("  training alone", *(f"{_training(run):,.1f} s" for run in (a, b))),
    ]
    tests = [
        (
            "difference B - A",
            f"{100 * pairs.difference:.2f} points, 95 % interval {100 * low:.2f} to "
            f"{100 * high:.2f} (Newcombe 1998, method 10)",
        ),
        ("McNemar's exact test", f"{p_value(mcnemar(pairs))}, two-sided"),
    ]
    names = [(name, str(run.folder)) for name, run in comparison.runs.items()]
    about = f"{a.result.data.name}: {pairs.images:,} {comparison.images}, the same for both"
    if a.part == "validation" and not (a.result.crossed or b.result.crossed):
        about += "; the test part was not read (--no-test)"
    lines = [*aligned(names), printable(about), "", *aligned(scores), ""]
    different = [
        (name, a.facts.get(name, "-"), b.facts.get(name, "-"))
        for name in a.facts | b.facts
        if a.facts.get(name) != b.facts.get(name)
    ]
    lines += aligned([("what differs", "A", "B"), *different]) if different else [_SAME]
    lines += ["", *pair_table(pairs), "", *aligned(tests), ""]
    return [
        *lines,
        *_wins(a, b),
        "The test compares these two networks; another seed would give another result.",
    ]


_SAME = "recipe, machine, versions, weights and data are the same"


def _with_interval(run: FinishedRun, images: int) -> str:
    accuracy = run.result.scores.accuracy
    low, high = interval(accuracy, images)
    return f"{100 * accuracy:.2f} % ({100 * low:.2f}-{100 * high:.2f})"


def _training(run: FinishedRun) -> float:
    return sum(run.result.seconds.get(phase.name, 0.0) for phase in run.result.phases)


def _wins(a: FinishedRun, b: FinishedRun) -> Iterator[str]:
    """Yield tables of the classes on which each run gains most over the other."""
    truth = a.predictions.classes
    names, numbers, images = np.unique(truth, return_inverse=True, return_counts=True)
    right_a, right_b = (np.bincount(numbers, run.predictions.hits).astype(int) for run in (a, b))
    rows = list(zip(names, right_a, right_b, images, strict=True))
    for run, gain in (("A", right_a - right_b), ("B", right_b - right_a)):
        best = [rows[row] for row in np.argsort(-gain, kind="stable") if gain[row] > 0]
        if best:
            title = (f"where {run} is better", "A right", "B right", "images")
            yield from aligned([title, *(tuple(map(str, row)) for row in best[:MOST_CLASSES])])
        else:
            yield f"{run} is better on no class"
        yield ""
