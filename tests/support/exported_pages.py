"""Asking a page that `thawnet export --to page` wrote, and the library, about the same images."""

from __future__ import annotations

import base64
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from support.photos import encoded
from thawnet.bundle.model import Model
from thawnet.image.decode import decode
from thawnet.image.preprocess import Preprocess, squared
from thawnet.webpage.facts import EXAMPLES

COFFEE, COINS, ROCKET = (EXAMPLES / f"{name}.jpg" for name in ("coffee", "coins", "rocket"))

ASK = """async ([name, content, own]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const file = new File([bytes], name);
    const { images } = await thawnet.predictor.predict([file], { topK: 5, explain: true });
    const way = { imageOrientation: "from-image", premultiplyAlpha: "none" };
    const facts = JSON.parse(document.getElementById("facts").textContent).model;
    if (images[0].error) return { said: images[0] };
    const bitmap = await createImageBitmap(file, way);
    const spec = { ...facts.preprocess, ...own };
    const square = thawnet.pixels.square(bitmap, await thawnet.orientation(file), spec);
    return { said: images[0], square: Array.from(square) };
}"""


def ready(page: Page) -> None:
    """Wait until the network is there, and cut what there is of a connection."""
    page.evaluate("thawnet.predictor.predict([], { topK: 1, explain: false })")
    page.context.set_offline(True)


def asked_about(
    page: Page, name: str, content: bytes, spec: Preprocess | None = None
) -> dict[str, Any]:
    """Return what a page says of an image, and the square of pixels that its network was given.

    spec: another than the page's own, for the square.
    """
    own = spec and {**asdict(spec.reduction), "crop": spec.crop}
    answer: dict[str, Any] = page.evaluate(ASK, [name, base64.b64encode(content).decode(), own])
    return answer


def odd_photos(sources: list[Path], count: int) -> dict[str, bytes]:
    """Return photos cut and resized to odd sizes, from tiny to 12 megapixels, by name."""
    rng = np.random.default_rng(0)
    photos = {}
    for number in range(count):
        image = Image.open(sources[number % len(sources)]).convert("RGB")
        wide, high = (int(rng.integers(side // 2, side + 1)) for side in image.size)
        scale = float(rng.choice([0.4, 0.7, 1, 1.7, 3, 6, 12]))
        size = [max(9, int(side * scale) + int(rng.integers(0, 7))) for side in (wide, high)]
        image = image.crop((0, 0, wide, high)).resize((size[0], size[1]), Image.Resampling.LANCZOS)
        exif = Image.Exif()
        exif[274] = number % 8 + 1
        form: str = ("JPEG", "JPEG", "PNG", "WEBP")[number % 4]
        options = {"exif": exif} if form == "JPEG" else {}
        name = f"{number}-{size[0]}x{size[1]}.{form.lower()}"
        photos[name] = encoded(image, form, **options)
    return photos


def compared(page: Page, model: Model, photos: dict[str, bytes]) -> tuple[int, float]:
    """Return for how many photos the page names the class that the library does, and the most grey
    levels, on average over a photo, that its pixels are off."""
    same, off = 0, 0.0
    for name, content in photos.items():
        answer = asked_about(page, name, content)
        (expected,) = model.predict([content])
        same += answer["said"]["predictions"][0]["class"] == expected.classes[0]
        square = squared(decode(content, model.preprocess.side), model.preprocess)
        levels = np.array(answer["square"], np.float64).reshape(square.shape)
        off = max(off, float(np.abs(levels - square).mean()))
    return same, off
