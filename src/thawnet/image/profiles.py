"""Conversion of colours from embedded ICC profiles to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE = 2**22  # bytes; printer profiles take 2 MB, camera profiles 500 bytes
LEVELS = 2  # of 255; a profile that changes no colour by more counts as sRGB


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image to sRGB by its embedded ICC profile, if it has a usable one.

    Browsers and viewers do the same, so a photo has the colours that a person sees.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 0 < len(profile) <= MAX_PROFILE:
        return image
    transform = _transform(profile, image.mode)
    if transform is None:
        return image
    converted = transform.apply(image)
    converted.info.update(image.info)
    return converted


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion to sRGB, or None if it is not needed or the profile is unusable."""
    try:
        transform = ImageCms.buildTransform(
            io.BytesIO(profile),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGBA" if mode == "RGBA" else "RGB",
            flags=ImageCms.Flags.NOCACHE,  # threads share it
        )
    except ImageCms.PyCMSError:
        return None  # damaged, or for other channels than the image has
    if mode in ("RGB", "RGBA"):
        colours = _lattice().convert(mode)
        changed = np.asarray(transform.apply(colours), np.int16) - np.asarray(colours)
        if np.abs(changed).max() <= LEVELS:
            return None
    return transform


def _lattice() -> Image.Image:
    """Return an image of 9 x 9 x 9 evenly spaced colours."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
