"""Fine-tuning is kept where images that it did not learn from say so, and not for luck."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thawnet.training.evidence import Comparison, compare


def answers(images: int, strength: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of four classes, the true one's so much higher, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 4
    logits = torch.randn(images, 4, generator=generator)
    return logits + strength * torch.eye(4)[labels], labels


def test_better_network_is_told_from_an_equal_one_and_a_worse_one() -> None:
    weak, labels = answers(200, 1.0, 0)
    strong, _ = answers(200, 2.5, 1)
    up, down = compare(weak, strong, labels), compare(strong, weak, labels)
    assert (up.better, up.beyond_doubt, up.hopeless) == (True, True, False)
    assert (down.better, down.beyond_doubt, down.hopeless) == (False, False, True)
    same = compare(weak, weak, labels)
    assert not same.better
    assert not same.hopeless


def test_networks_of_one_strength_are_rarely_told_apart() -> None:
    kept = [
        compare(answers(60, 1.0, 2 * seed)[0], *answers(60, 1.0, 2 * seed + 1)).better
        for seed in range(100)
    ]
    assert 5 < sum(kept) < 30  # beyond one standard error: 16 % in the mean


def test_overconfidence_alone_counts_neither_way_as_a_temperature_mends_it() -> None:
    logits, labels = answers(400, 1.5, 0)
    assert not compare(logits, 5 * logits, labels).hopeless
    assert not compare(5 * logits, logits, labels).better


@pytest.mark.parametrize(
    ("comparison", "sentence"),
    [
        (Comparison(40, 1.0, 0.8, 0.05), "fine-tuning is kept: calibrated, on 40 held-out images"),
        (Comparison(1, 1.0, 0.9, np.inf), "the head alone is kept, fine-tuning is not surely low"),
        (Comparison(40, 0.366, 0.389, 0.0), "fine-tuning is not lower: calibrated, on 40 held"),
    ],
)
def test_sentence_says_what_was_found(comparison: Comparison, sentence: str) -> None:
    assert sentence in comparison.sentence("held-out")


def test_one_image_decides_nothing() -> None:
    logits, labels = answers(1, 3.0, 0)
    assert not compare(-logits, logits, labels).better
