"""Mixup and CutMix: a batch mixed with a shuffled copy of itself.

Zhang et al. 2018, "mixup: Beyond empirical risk minimization"; Yun et al. 2019, "CutMix:
Regularization strategy to train strong classifiers with localizable features". Both work on images
and on cached activations; CutMix needs a height and a width.
"""

from __future__ import annotations

import numpy as np
import torch

from ..data.device import sent
from ..recipe import Phase


def mix(
    x: torch.Tensor, phase: Phase, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the mixed batch, the order of the partners (n,), and the share each image keeps.

    x: (n, ...). If a phase uses both, each batch gets one of them, with equal probability. The
    share is 0.5 to 1: an image always counts at least as much as its partner.
    """
    order = sent(rng.permutation(len(x)), x.device)
    cut = bool(phase.cutmix) and x.dim() == 4 and (not phase.mixup or rng.random() < 0.5)
    alpha = phase.cutmix if cut else phase.mixup
    if not alpha:
        return x, order, 1.0
    share = float(rng.beta(alpha, alpha))
    share = max(share, 1 - share)
    if not cut:
        return torch.lerp(x[order], x, share), order, share
    height, width = x.shape[-2:]
    box_height, box_width = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
    mixed = x.clone()
    box = (..., slice(top, top + box_height), slice(left, left + box_width))
    mixed[box] = x[order][box]
    return mixed, order, 1 - box_height * box_width / (height * width)
