"""The exported page and the service's in the system's Firefox."""

from __future__ import annotations

from typing import Any

import pytest

from support.exported_pages import COFFEE, COINS, ROCKET
from support.firefox import Firefox
from support.watched_pages import GLOBALS
from thawnet.bundle.model import Model

pytestmark = pytest.mark.slow  # another engine: what pages promise is tried in Chromium
PHOTOS = [COFFEE, COINS, ROCKET]
CARDS = """return new Promise((done) => {
    const mapped = (card) => {
        card.querySelector("button.bar").click();
        const [image, overlay] = [".image", ".overlay"].map((each) => card.querySelector(each));
        return !overlay.hidden && overlay.width === image.width;
    };
    const look = () => {
        const cards = [...document.querySelectorAll(".card")];
        const waiting = cards.some((card) => card.dataset.state === "waiting");
        if (cards.length < arguments[0] || waiting) setTimeout(look, 50);
        else done(cards.map((card) => ({
            state: card.dataset.state,
            class: card.querySelector(".best .name").textContent,
            share: card.querySelector(".best .share").textContent,
            unfamiliar: card.dataset.unfamiliar === "true",
            map: mapped(card),
        })));
    };
    look();
})"""


def cards(firefox: Firefox, count: int) -> list[dict[str, Any]]:
    """Wait until so many cards have an answer or an error, and return what they show."""
    return firefox.run(CARDS, count)


@pytest.mark.parametrize("form", ["folder", "file", "service"])
def test_photos_are_answered_as_the_library_does(
    firefox: Firefox, addresses: dict[str, str], embedded_model: Model, form: str
) -> None:
    firefox.open(addresses[form])
    firefox.choose_files("#files", *PHOTOS)
    for card, expected in zip(cards(firefox, 3), embedded_model.predict(PHOTOS), strict=True):
        assert card["state"] == "done"
        assert card["class"] == expected.classes[0]
        share = float(card["share"].lstrip(">").rstrip("% \u00a0"))
        assert share == pytest.approx(100 * expected.probabilities[0], abs=3)
        assert card["unfamiliar"] == expected.unfamiliar
        assert card["map"]
    assert firefox.complaints() == []


@pytest.mark.parametrize("form", ["folder", "file", "service"])
def test_scripts_add_one_name_to_the_window(
    firefox: Firefox, addresses: dict[str, str], form: str
) -> None:
    names = f"return Object.keys({GLOBALS.replace('window', 'window.wrappedJSObject ?? window')})"
    firefox.open(COFFEE.as_uri())
    browsers = set(firefox.run(names))  # a picture has no scripts
    firefox.open(addresses[form])
    firefox.choose_files("#files", PHOTOS[0])
    cards(firefox, 1)
    assert set(firefox.run(names)) - browsers == {"thawnet"}
