"""The exported network as a module: the page that the documentation shows, in a real browser."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from support.documents import read_document
from support.exported_pages import COFFEE
from support.photos import encoded
from support.watched_pages import Watched
from support.web import hosted
from thawnet.bundle.model import Model


@pytest.fixture(scope="module")
def site(exported_page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the documentation's page beside an exported one."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(exported_page / "page", folder / "page")
    (html,) = re.findall(r"```html\n(.*?)```", read_document("docs/export.md"), re.DOTALL)
    (folder / "own.html").write_text(html)
    return folder


def opened(browser: Browser, watched: Watched, address: str) -> Page:
    page = watched.page(browser)
    page.goto(f"{address}/own.html")
    return page


def test_page_of_the_documentation_names_a_photo(
    chromium: Browser, site: Path, watched: Watched, embedded_model: Model, tmp_path: Path
) -> None:
    watched.forget()
    (answer,) = embedded_model.predict([COFFEE])
    with hosted(site) as address:
        page = opened(chromium, watched, address)
        page.set_input_files("input", COFFEE)
        expect(page.locator("p")).to_have_text(re.compile(rf"^{answer.classes[0]}, \d+ %$"))
        (tmp_path / "notes.txt").write_text("no photo")
        page.set_input_files("input", tmp_path / "notes.txt")
        expect(page.locator("p")).to_contain_text("not an image in a format that this browser")
        assert [url for url in watched.asked if not url.startswith((address, "blob:"))] == []


def test_module_takes_elements_and_lists_its_classes(
    chromium: Browser, site: Path, watched: Watched, embedded_model: Model
) -> None:
    shutil.copy(COFFEE, site / "photo.jpg")
    with hosted(site) as address:
        page = opened(chromium, watched, address)
        found = page.evaluate(
            """async () => {
                const { classes, classify } = await import("./page/static/classifier.js");
                const image = new Image();
                image.src = "photo.jpg";
                await image.decode();
                return { classes, best: await classify(image, { top: 2 }) };
            }"""
        )
    assert found["classes"] == list(embedded_model.classes)
    with Image.open(COFFEE) as photo:  # the browser draws all of its pixels
        (answer,) = embedded_model.predict([encoded(photo)], top_k=1)
    best, second = found["best"]
    assert best["class"] == answer.classes[0]
    assert best["probability"] == pytest.approx(answer.probabilities[0], abs=0.03)
    assert 0 < second["probability"] <= best["probability"]
