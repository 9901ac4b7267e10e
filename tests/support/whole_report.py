"""A report of made-up figures, for the tests of its page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from thawnet.metrics.calibration import Bin
from thawnet.metrics.result import CalibrationErrors, Validation
from thawnet.report.content import (
    ClassScore,
    Confusion,
    Copies,
    DataAudit,
    Example,
    Pair,
    Picture,
    Reliability,
    Report,
    Rival,
    Suspect,
    Suspects,
)


def picture(name: str, side: int = 32, seed: int = 0) -> Picture:
    """Return noise with a map over its middle."""
    noise = np.random.default_rng(seed)
    over = _encoded(noise.integers(0, 256, (3, 3, 4), np.uint8), "png")
    data = _encoded(noise.integers(0, 256, (side, side, 3), np.uint8), "webp")
    return Picture(name, data, "image/webp", side, side, over, (0.125, 0.0, 0.875, 1.0))


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
        ClassScore(
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
    mistakes = [Example(each.name, each, first, second, 0.98, 0.01) for each in shown]
    hits = [Example("gone.png", None, first, first, 0.31, 0.31)]
    bins = [Bin(0.2, 0.3, 10), Bin(0.6, 0.55, 30), Bin(0.95, 0.9, 60)]
    return Report(
        title=f"network on {first}",
        part="test",
        accuracy=0.7135,
        interval=(0.7046, 0.7223),
        images=10_000,
        top_5=0.93,
        balanced=0.7,
        standing="this network is 19.35 points better than logistic regression",
        flattered=False,
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
        confusion=Confusion(names, counts),
        pairs=[Pair(first, second, 12, 100, shown[:6])],
        mistakes=mistakes,
        hits=hits,
        reliability=Reliability(0.76, bins, bins, CalibrationErrors(0.0935, 0.0195), 2500),
        suspects=Suspects(47_500, [Suspect("a.png", shown[0], first, second, 4.2)]),
        audit=audit(first, second),
        missing=[f"No image of {first} could be read."],
        made=[("confusion", 0.4), ("reading images", 1.25)],
    )


def audit(first: str, second: str) -> DataAudit:
    """Return an audit of data with these two classes."""
    return DataAudit(
        name=f"photos of {first}",
        classes=2,
        images=300,
        header=["part", "images", "stored as"],
        rows=[["train", "200", "JPEG"], ["test", "100", "PNG"]],
        smallest=[(second, 50)],
        largest=[(first, 150)],
        findings=[(f"1 picture of {first} is in train and test.", "Take it out of train.")],
        copies=[
            Copies(
                "exact",
                "in two parts",
                [("train", first, picture("a.png")), ("test", second, None)],
            )
        ],
        groups=7,
        notes=["val: none; thawnet train splits it off train"],
    )
