"""Mixup and CutMix: shares that add up, boxes of the right size, the same with the same key."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from thawnet.recipe import Phase
from thawnet.training.mixing import mix

PHASE = Phase(train_from="all", epochs=1, lr=0.1)


def constants(count: int) -> torch.Tensor:
    """Return images whose every value is their number: a mix shows what it was made of."""
    return torch.arange(count).float()[:, None, None, None].expand(count, 3, 16, 16).clone()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_every_image_keeps_the_share_that_is_told(mixup: float, cutmix: float) -> None:
    phase = dataclasses.replace(PHASE, mixup=mixup, cutmix=cutmix)
    for key in range(20):
        x = constants(8)
        mixed, partners, share = mix(x, phase, np.random.default_rng(key))
        assert 0.5 <= share <= 1
        expected = share * torch.arange(8) + (1 - share) * partners
        assert torch.allclose(mixed.mean((1, 2, 3)), expected, atol=1e-4)
        assert torch.equal(x, constants(8))  # the batch itself is not touched


def test_cutmix_pastes_whole_pixels() -> None:
    phase = dataclasses.replace(PHASE, cutmix=1.0)
    mixed, partners, _ = mix(constants(8), phase, np.random.default_rng(3))
    for image, partner in enumerate(partners.tolist()):
        assert set(mixed[image].unique().tolist()) <= {float(image), float(partner)}


def test_both_kinds_take_their_turns_and_a_key_repeats_them() -> None:
    phase = dataclasses.replace(PHASE, mixup=0.5, cutmix=1.0)

    def pasted(key: int) -> bool:
        mixed, _, _ = mix(constants(8), phase, np.random.default_rng(key))
        return set(mixed.unique().tolist()) <= set(range(8))

    assert 10 < sum(pasted(key) for key in range(40)) < 30
    one, other = (mix(constants(8), phase, np.random.default_rng(5))[0] for _ in range(2))
    assert torch.equal(one, other)


def test_pooled_features_are_mixed_but_never_cut() -> None:
    phase = dataclasses.replace(PHASE, cutmix=1.0)
    x = torch.randn(8, 5)
    mixed, _, share = mix(x, phase, np.random.default_rng(0))
    assert share == 1
    assert torch.equal(mixed, x)
