"""A report of made-up figures, for the tests of its page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from support.results import result_of, scores
from thawnet.audit.contents import Audit, Finding, Group, Member, Part
from thawnet.metrics.calibration import Bin
from thawnet.metrics.result import CalibrationErrors, LearningPoint, Scores, Validation
from thawnet.report.content import (
    ClassRow,
    ConfusionMatrix,
    Copies,
    Example,
    More,
    Pair,
    Picture,
    Report,
    Rival,
    Suspect,
)


def picture(name: str, side: int = 32, seed: int = 0) -> Picture:
    """Return noise with a map over its middle."""
    noise = np.random.default_rng(seed)
    over = _encoded(noise.integers(0, 256, (3, 3, 4), np.uint8), "png")
    data = _encoded(noise.integers(0, 256, (side, side, 3), np.uint8), "webp")
    return Picture(name, data, side, side, over, (0.125, 0.0, 0.875, 1.0))


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def whole_report(names: list[str], images: int = 100) -> Report:
    """Return a report with everything in it, on classes with these names."""
    count = len(names)
    noise = np.random.default_rng(0)
    counts = noise.poisson(min(1.0, 40 / count), (count, count)).astype(np.int64)
    np.fill_diagonal(counts, 0)
    np.fill_diagonal(counts, np.maximum(1, images - counts.sum(axis=1) - np.arange(count) % 7))
    classes = [
        ClassRow(
            name,
            int(counts[place].sum()),
            float(counts[place, place] / counts[place].sum()),
            float(counts[place, place] / counts[:, place].sum()),
            names[(place + 1) % count],
            2,
        )
        for place, name in enumerate(names)
    ]
    first, second = names[0], names[1]
    shown = [picture(f"{name}/{at}.png", seed=at) for at, name in enumerate([first] * 12)]
    mistakes = [Example(each, first, second, 0.98, 0.01) for each in shown]
    hits = [Example(shown[0], first, first, 0.31, 0.31)]
    bins = [Bin(0.2, 0.3, 10), Bin(0.6, 0.55, 30), Bin(0.95, 0.9, 60)]
    errors = CalibrationErrors(0.0935, 0.0195)
    test = Scores(0.7135, (0.7046, 0.7223), 0.93, 0.7, errors, 1.0, 10_000)
    audited, copies = audit(first, second)
    return Report(
        title=f"network on {first}",
        result=result_of(
            "test",
            0.7135,
            10_000,
            metrics={"test": test, "validation": scores(0.7, 2500)},
            temperature=0.76,
            standing="this network is 19.35 points better than logistic regression",
        ),
        flattered=False,
        more=More(
            (
                LearningPoint(250, 0.41, (0.2,), (0.01, 0.09)),
                LearningPoint(500, 0.52, (0.4,), (0.01, 0.09)),
                LearningPoint(750, 0.57, (0.5,), (0.01, 0.09)),
                LearningPoint(1000, 0.6, (0.55,), (0.01, 0.09)),
            ),
            "More photos would still help.",
            [(first, 0.4, 0.55)],
        ),
        rivals=[
            Rival("the most frequent class", 0.01),
            Rival("logistic regression", 0.52, (0.51, 0.53), "on the frozen features"),
            Rival("the reference", 0.75),
        ],
        facts=[("network", "mobilenetv2_100"), ("command", f"thawnet train '{second}'" * 3)],
        history=[
            Validation(1, 0, 2.9, 0.3, 1.9, 0.5),
            Validation(2, 0, 1.7, 0.5, 1.8, 0.55, kept=True),
            Validation(2.5, 1, 1.5, 0.6, 1.2, 0.68),
            Validation(3, 1, 1.4, 0.63, 1.1, 0.71, kept=True),
        ],
        validated_on="validation",
        seconds=[("data", 6.2), ("features", 42.5), ("fine-tune", 5000.0)],
        classes=classes,
        confusion=ConfusionMatrix(names, counts, counts.sum(axis=1)),
        pairs=[Pair(first, second, 12, 100, shown[:6])],
        mistakes=mistakes,
        hits=hits,
        uncalibrated=bins,
        calibrated=bins,
        training_images=47_500,
        suspects=[Suspect(shown[0], first, second, 4.2)],
        audit=audited,
        copies=copies,
        missing=[f"No image of {first} could be read."],
        timings={"confusion": 0.4, "reading images": 1.25},
    )


def audit(first: str, second: str) -> tuple[Audit, Copies]:
    """Return an audit of data with these two classes, and its copies."""
    copies = [Member("train", first, "a.png"), Member("test", second, "gone.png")]
    groups = [Group("parts and classes", True, 1.0, False, tuple(copies))] * 7
    audited = Audit(
        name=f"photos of {first}",
        classes=(first, second),
        size=32,
        parts=(
            _part("train", {first: 150, second: 50}, "JPEG"),
            _part("test", {first: 50, second: 50}, "PNG"),
        ),
        split_off={},
        folded=False,
        straddling=0,
        groups=tuple(groups),
        notes=("val: none; thawnet train splits it off train",),
        findings=(
            Finding("copies", f"1 picture of {first} is in train and test.", "Take it out."),
        ),
    )
    return audited, [(groups[0], [(copies[0], picture("a.png")), (copies[1], None)])]


def _part(name: str, counts: dict[str, int], kind: str) -> Part:
    images = sum(counts.values())
    return Part(
        name=name,
        images=images,
        stored_bytes=10_000 * images,
        counts=counts,
        width=(32, 40, 64),
        height=(32, 32, 32),
        smaller=0,
        cut=0,
        tiny=0,
        modes={"RGB": images},
        formats={kind: images},
        turned=1,
        animated=(),
        plain=(),
        broken=(),
    )
