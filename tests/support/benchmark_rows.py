"""What the rows of `make bench` measure, with figures that are easy to check by head."""

from __future__ import annotations

from typing import Any

from figures import Rows
from rows import PANEL


def epochs(*points: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {
            "epoch": number,
            "at": at,
            "val_accuracy": accuracy,
            "images_per_second": 200.0,
            "elapsed": at - 5,
        }
        for number, (at, accuracy) in enumerate(points, start=1)
    ]


def trial(*points: tuple[float, float], wall: float = 300.0, test: float = 0.78) -> dict[str, Any]:
    return {
        "wall": wall,
        "memory": 1_500_000_000,
        "epochs": epochs(*points),
        "metrics": {"test": {"accuracy": test}},
        "seconds": {"head": 80.0},
    }


def keras(step: float) -> dict[str, Any]:
    """Return what the Keras script would print: 34 s once and 2 x 10 epochs of 100 steps."""
    phase = {
        "train": {"first": 10.0 + step, "rest": [step] * 4},
        "validate": {"first": 2.0, "rest": [0.0] * 4},
    }
    once = {"start": 4.0, "data": 5.0, "model": 1.0, "fill": 0.0}
    return {**once, "images": 6400, "held_out": 640, "batch": 64, "phases": [phase, phase]}


def cpu_rows() -> Rows:
    """Return every row of the CPU table."""
    cold = trial((100, 0.5), (160, 0.70), (200, 0.72), (240, 0.78))
    warm = trial((10, 0.5), (50, 0.70), (90, 0.72), (130, 0.78))
    short = trial((100, 0.4), (200, 0.5), (280, 0.55), wall=300.0)
    timm = {"batch": 64, "train": {"first": 3.0, "rest": [0.64] * 4}}
    return Rows(
        quick={
            "pairs": [{"keras": keras(step), "cold": cold, "warm": warm} for step in (2, 2.2, 1.8)]
        },
        keras={"epochs": epochs((2000, 0.5), (4100, 0.65))},
        seed={
            "whole": trial((1700, 0.64), test=0.64),
            "pairs": [{"keras": keras(2.0), "seed": short}],
        },
        trunk={"turns": [{"thawnet": 1200.0, "onnxruntime": 800.0, "eager": 300.0}]},
        share={"steps": 2, "whole": [10.0, 10.0], "compute": [9.5, 9.1]},
        scale={
            "runs": [
                {**trial((50, 0.5), wall=wall), "images": count}
                for count, wall in ((10_000, 40.0), (50_000, 120.0), (200_000, 420.0))
            ]
        },
        timm={"pairs": [{"timm": timm, "full": trial((100, 0.6))}]},
        full={"run": trial((500, 0.6), (3000, 0.8), wall=3500.0, test=0.8)},
        few={
            "runs": [
                {
                    **trial((5, 0.5), wall=wall, test=0.6),
                    "baselines": {"logistic_regression_on_frozen_features": {"accuracy": alone}},
                    "data": "flowers",
                    "photos": 20,
                    "split": split,
                }
                for split, (wall, alone) in enumerate(((20.0, 0.6), (24.0, 0.55), (25.0, 0.58)))
            ]
        },
        panel={
            "runs": [
                {
                    **trial((5, 0.5), wall=60.0, test=test),
                    "baselines": {"logistic_regression_on_frozen_features": {"accuracy": 0.7}},
                    "data": data,
                    "weights": f"{weights}_imagenet",
                }
                for data in PANEL
                for weights, test in (("mobilenetv2_100", 0.8), ("tf_efficientnet_lite0", 0.82))
            ]
        },
        **{
            f"fastai-{network}-{data}": {
                "run": {
                    "data": data,
                    "weights": f"{network}_imagenet",
                    "accuracy": right,
                    "images": 500,
                    "seconds": 300.0,
                }
            }
            for data in PANEL
            for network, right in (("mobilenetv2_100", 0.7), ("tf_efficientnet_lite0", 0.72))
        },
        predict={
            "starts": [0.5, 0.6],
            "small": {"turns": [{"decode": 1.0, "network": 4.0, "predict": 5.0}]},
            "large": {"turns": [{"decode": 4.0, "network": 4.0, "predict": 10.0}]},
            "memory": {"100": 2e8, "1000": 2.1e8},
        },
    )
