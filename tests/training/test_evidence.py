"""Fine-tuning is kept where images that it did not learn from say so, and not for luck."""

from __future__ import annotations

import pytest
import torch

from thawnet.training.evidence import Evidence, Side, weigh


def answers(images: int, strength: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of four classes, the true one's so much higher, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 4
    logits = torch.randn(images, 4, generator=generator)
    return logits + strength * torch.eye(4)[labels], labels


def test_better_network_is_told_from_an_equal_one_and_a_worse_one() -> None:
    weak, labels = answers(200, 1.0, 0)
    strong, _ = answers(200, 2.5, 1)
    up, down = weigh(weak, strong, labels), weigh(strong, weak, labels)
    assert (up.better, up.decided) == (True, True)
    assert (down.better, down.decided) == (False, True)
    assert up.head == down.tuned
    same = weigh(weak, weak, labels)
    assert (same.better, same.decided) == (False, False)


def test_networks_of_one_strength_are_rarely_told_apart_for_sure() -> None:
    found = [
        weigh(answers(60, 1.0, 2 * seed)[0], *answers(60, 1.0, 2 * seed + 1)) for seed in range(100)
    ]
    assert 20 < sum(each.better for each in found) < 50
    assert sum(each.decided for each in found) < 15


def test_lower_loss_with_fewer_hits_is_not_better_and_neither_is_the_reverse() -> None:
    loss_alone = Evidence(40, Side(30, 1.0), Side(29, 0.96), 0.05)
    assert Evidence(40, Side(30, 1.0), Side(29, 0.9), 0.05).better  # for sure
    hits_alone = Evidence(40, Side(30, 1.0), Side(35, 1.1), 0.05)
    assert not loss_alone.better
    assert not hits_alone.better
    assert Evidence(40, Side(30, 1.0), Side(30, 0.99), 0.05).better


def test_overconfidence_alone_counts_neither_way_as_a_temperature_mends_it() -> None:
    logits, labels = answers(400, 1.5, 0)
    found = weigh(logits, 5 * logits, labels)
    assert found.head.loss == pytest.approx(found.tuned.loss, abs=0.01)


def test_sentence_says_what_was_found() -> None:
    kept = Evidence(40, Side(30, 1.0), Side(33, 0.8), 0.05)
    assert kept.sentence("held-out") == (
        "fine-tuning is kept: 33 of 40 held-out images are right with it (calibrated loss 0.800), "
        "30 without (1.000)"
    )
    alone = Evidence(1, Side(1, 0.366), Side(1, 0.389), 0.0)
    assert alone.sentence("validation").startswith(
        "fine-tuning is not kept, the head alone is the result: 1 of 1 validation image "
    )


def test_one_image_decides_nothing() -> None:
    logits, labels = answers(1, 3.0, 0)
    assert not weigh(-logits, logits, labels).decided
