"""Data on the device: small arrays sent without waiting, and whole stores that stay there."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from .store import ImageStore

SHARE = 4  # a store stays on a GPU if it takes no more than a quarter of what is free there
STORES = 3  # that are kept: training with validation, test, and another one's


def sent(values: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on a device.

    From pageable memory a copy waits until the GPU has done all it was asked before; from pinned
    memory it does not, so that steps are queued while others run.
    """
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


_resident: dict[tuple[str, int], torch.Tensor] = {}  # by content and side, the oldest first


def squares_on(images: ImageStore, device: torch.device) -> torch.Tensor | None:
    """Return all images of a store on a GPU, (n, side, side, 3) uint8, None where they do not stay.

    They stay if they are squares, which can be gathered at once, and fit. n counts all rows of the
    store, of which `images` may be some; see ImageStore.rows.
    """
    if device.type != "cuda" or images.squares is None:
        return None
    key = (images.content, images.side)
    if key not in _resident:
        if images.squares.nbytes > torch.cuda.mem_get_info(device)[0] // SHARE:
            return None
        _resident[key] = torch.tensor(images.squares).to(device)  # of a map that is read-only
        while len(_resident) > STORES:
            del _resident[next(iter(_resident))]
    return _resident[key]
