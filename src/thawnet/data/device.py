"""Data on the device: small arrays sent without blocking, and whole stores kept resident."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from .store import ImageStore

SHARE = 4  # a store is kept on a GPU if it takes at most a quarter of the free memory
STORES = 3  # kept at most: training with validation, test, and one of another data set


def sent(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device.

    A copy from pageable memory waits for all earlier GPU work. A copy from pinned memory does not,
    so steps can be queued while others run.
    """
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


_resident: dict[tuple[str, int], torch.Tensor] = {}  # by content and side, oldest first


def squares_on(images: ImageStore, device: torch.device) -> torch.Tensor | None:
    """Return all images of a store on a GPU, (n, side, side, 3) uint8, or None if not kept there.

    They are kept if all are square, so that a batch is one gather, and if they fit. n counts all
    rows of the store; `images` may select a subset of them, see ImageStore.rows.
    """
    if device.type != "cuda" or images.squares is None:
        return None
    key = (images.content, images.side)
    if key not in _resident:
        if images.squares.nbytes > torch.cuda.mem_get_info(device)[0] // SHARE:
            return None
        _resident[key] = torch.tensor(images.squares).to(device)  # a copy: the map is read-only
        while len(_resident) > STORES:
            del _resident[next(iter(_resident))]
    return _resident[key]
