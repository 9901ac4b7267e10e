"""The score that detects images unlike the training data."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ..bundle.meaning import Unfamiliar
from ..core import console
from ..core.text import counted
from ..data.store import ImageStore
from ..model.backbone import Network
from ..model.thawing import MIDDLE, first_layer
from .context import Run
from .trunk.feeds import LiveFeed

FAR = 2.0
SHRINKAGE = 0.05  # of the covariance towards a multiple of the identity
FALSE_ALARMS = 0.05  # share of the validation images that are called unfamiliar
LEAST_VALIDATION = 40  # validation images: with fewer, that share would be one image or none
MOST_LEARNT_FROM = 4_000
AT_ONCE = 250


class Unfamiliarity(nn.Module):
    """Out-of-distribution score: low maximum logit plus distance of mid-network features.

    Images of unknown classes have a low largest logit (Vaze et al. 2022, "Open-set recognition: a
    good closed-set classifier is all you need"). Images of another kind, such as drawings, may have
    a high one, but they differ in textures. The Mahalanobis distance of the mean activations in the
    middle of the network detects these (Lee et al. 2018, "A simple unified framework for detecting
    out-of-distribution samples"). Both are measured in standard deviations over the validation
    images. The distance counts only beyond FAR of them, where hardly any familiar image lies.
    """

    centre: torch.Tensor
    whitening: torch.Tensor
    scale: torch.Tensor

    def __init__(self, middle: torch.Tensor) -> None:
        """Fit the distance to mean activations of training images, (n, channels); see `pooled`."""
        super().__init__()
        centred = middle.double() - middle.double().mean(0)
        covariance = centred.T @ centred / len(middle)
        some = covariance.diagonal().mean().clamp_min(1e-12) * torch.eye(len(covariance))
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * some
        inverse = torch.linalg.cholesky(torch.linalg.inv(shrunk))
        self.register_buffer("centre", middle.mean(0))
        self.register_buffer("whitening", inverse.float())
        self.register_buffer("scale", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))

    def measure(self, distances: torch.Tensor, logits: torch.Tensor) -> None:
        """Set the mean and standard deviation of both parts from held-out images."""
        both = torch.stack([-logits.amax(1), distances])
        spread = both.std(1).clamp_min(1e-6)
        self.scale.copy_(torch.stack([both.mean(1), spread], 1))

    def forward(self, middle: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return scores, (n,), for activations, (n, channels, h, w), and logits, (n, classes)."""
        return self.score(self.distances(pooled(middle)), logits)

    def score(self, distances: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return scores, (n,), for distances, (n,), and logits, (n, classes)."""
        near = (-logits.amax(1) - self.scale[0, 0]) / self.scale[0, 1]
        far = (distances - self.scale[1, 0]) / self.scale[1, 1]
        return near + 2 * F.relu(far - FAR)

    def distances(self, middle: torch.Tensor) -> torch.Tensor:
        """Return Mahalanobis distances, (n,), of mean activations, (n, channels)."""
        return ((middle - self.centre) @ self.whitening).square().sum(1).sqrt()


def pooled(middle: torch.Tensor) -> torch.Tensor:
    """Return the mean over all positions, (n, channels), of activations (n, channels, h, w)."""
    return middle.mean((2, 3)) if middle.dim() == 4 else middle


def fit_familiarity(
    run: Run, logits: NDArray[np.float32]
) -> tuple[Unfamiliarity, Unfamiliar] | None:
    """Return the out-of-distribution score and its threshold, or None.

    logits: of the validation images, (n, classes). None if there are too few of these, or if the
    middle of the network has no channels and positions, as in transformers. A share FALSE_ALARMS of
    the validation images scores above the threshold.
    """
    stage = middle_of(run.network)
    if stage is None:
        console.say(
            f"images unlike the training data will not be marked: {run.network.backbone} cannot"
        )
        return None
    if len(run.val) < LEAST_VALIDATION:
        console.say(
            f"images unlike the training data will not be marked: "
            f"{counted(len(run.val), f'{run.validated_on} image')} "
            f"{'is' if len(run.val) == 1 else 'are'} too few (at least {LEAST_VALIDATION})"
        )
        return None
    if run.folds is None:
        rows = some_of_each(run.train.labels, len(run.source.classes))
        known = _middle(run, run.train.subset(rows), stage, "measuring what is familiar")
        unfamiliarity = Unfamiliarity(known)
        distances = unfamiliarity.distances(_middle(run, run.val, stage, "measuring false alarms"))
    else:
        known = _middle(run, run.train, stage, "measuring what is familiar")
        unfamiliarity = Unfamiliarity(known)
        held = np.flatnonzero(np.isin(run.train.rows, run.val.rows))
        distances = _held_out(known, run.folds)[torch.from_numpy(held)]
    answers = torch.from_numpy(logits)
    unfamiliarity.measure(distances, answers)
    scores = unfamiliarity.score(distances, answers).numpy().astype(np.float64)
    threshold = float(np.quantile(scores, 1 - FALSE_ALARMS))
    return unfamiliarity, Unfamiliar(threshold, FALSE_ALARMS)


def _held_out(middle: torch.Tensor, folds: NDArray[np.int64]) -> torch.Tensor:
    """Return each image's distance from the images of the other folds, (n,).

    middle: mean activations, (n, channels). folds: fold of each image, (n,).
    """
    distances = torch.empty(len(middle))
    for fold in np.unique(folds):
        held = torch.from_numpy(folds == fold)
        distances[held] = Unfamiliarity(middle[~held]).distances(middle[held])
    return distances


def middle_of(network: Network) -> int | None:
    """Return the stage whose input is used; None if that has no channels and positions."""
    stage = network.stage_of(first_layer(network, MIDDLE))
    return stage if 0 < stage < network.last_map and len(network.shapes[stage]) == 3 else None


def some_of_each(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return up to MOST_LEARNT_FROM positions, sorted, at most the same number per class."""
    most = max(1, MOST_LEARNT_FROM // classes)
    drawn = np.random.default_rng(0).permutation(len(labels))
    order = drawn[np.argsort(labels[drawn], kind="stable")]  # class by class
    starts = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=classes))[:-1]])
    return np.sort(order[np.arange(len(order)) - starts[labels[order]] < most])


def _middle(run: Run, images: ImageStore, stage: int, title: str) -> torch.Tensor:
    """Return the mean activations before a stage, (n, channels), computed in float32."""
    batch = LiveFeed(run.exact_origin(images), stage, 1, 0).epoch(0)
    pieces = []
    with console.progress(title, len(images)) as advance:
        for rows in np.array_split(np.arange(len(images)), len(images) // AT_ONCE + 1):
            pieces.append(pooled(batch(rows).float().cpu()))
            advance(len(rows))
    return torch.cat(pieces)
