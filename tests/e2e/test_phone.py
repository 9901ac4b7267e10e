"""The exported page and the service's on a phone, as Chromium emulates one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from support.exported_pages import COFFEE, ROCKET, asked_about
from support.photos import TURNED, encoded
from support.watched_pages import GLOBALS, PHONE, Watched
from thawnet.bundle.model import Model
from thawnet.image.heic import add_heic

FORMS = ["folder", "file", "service"]
Open = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, addresses: dict[str, str], watched: Watched) -> Iterator[Open]:
    """Return a function that opens a form of the page on a phone; no script may fail.

    It is the one that other tests used, unless options for it are given.
    """
    watched.forget()

    def open_(form: str, **options: Any) -> Page:
        if not options:
            return watched.kept(chromium, addresses[form], timeout=30_000, **PHONE)
        page = watched.page(chromium, 30_000, **PHONE | options)
        page.goto(addresses[form])
        return page

    yield open_
    # The browser itself notes each answer that is not 2xx.
    assert [line for line in watched.wrong if not line.startswith("Failed to load resource")] == []


@pytest.mark.parametrize("form", FORMS)
def test_photo_is_answered_and_the_answer_is_in_sight(
    open_page: Open, embedded_model: Model, form: str
) -> None:
    page = open_page(form)
    assert page.evaluate("[typeof orientation, matchMedia('(hover: none)').matches]") == [
        "number",
        True,
    ]
    page.set_input_files("#files", [COFFEE])
    expect(page.locator(".card[data-state=done] .best .name")).to_be_in_viewport()
    (expected,) = embedded_model.predict([COFFEE])
    assert page.locator(".card .best .name").inner_text() == expected.classes[0]
    page.locator("button.bar").nth(2).tap()
    expect(page.locator("button.bar").nth(2)).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("form", FORMS)
def test_scripts_add_one_name_to_the_window(open_page: Open, form: str) -> None:
    page = open_page(form)
    page.set_input_files("#files", [COFFEE])
    page.locator(".card:not([data-state=waiting])").wait_for()
    own = page.evaluate(GLOBALS)
    empty = page.context.new_page()
    empty.goto(COFFEE.as_uri())  # a picture has no scripts
    browsers = empty.evaluate(GLOBALS)
    empty.close()
    assert {name: own[name] for name in browsers} == browsers  # none was replaced
    assert set(own) - set(browsers) == {"thawnet"}


def test_turned_photo_is_answered_as_the_library_does(
    open_page: Open, embedded_model: Model
) -> None:
    page = open_page("file")
    upright = Image.open(ROCKET)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        turned = upright.transpose(TURNED[orientation]) if orientation > 1 else upright
        content = encoded(turned, "JPEG", exif=exif)
        best = asked_about(page, "a.jpg", content)["said"]["predictions"][0]
        (expected,) = embedded_model.predict([content])
        assert best["class"] == expected.classes[0] == "rocket"
        assert best["probability"] == pytest.approx(expected.probabilities[0], abs=0.03)


@pytest.mark.parametrize("form", FORMS)
def test_photo_is_taken_with_the_phones_own_camera(open_page: Open, form: str) -> None:
    page = open_page(form)
    with page.expect_file_chooser() as chooser:  # without https a page may not film
        page.tap("#photo")
    assert chooser.value.element.get_attribute("capture") == "environment"
    chooser.value.set_files(ROCKET)
    expect(page.locator(".card .best .name")).to_have_text("rocket")


def test_refused_camera_leaves_the_phones_own(open_page: Open) -> None:
    page = open_page("service", has_touch=True)
    page.evaluate(
        """() => Object.defineProperty(navigator, "mediaDevices", { value: {
            getUserMedia: () => Promise.reject(new DOMException("", "NotAllowedError")),
            enumerateDevices: async () => [{ kind: "videoinput" }],
        } })"""
    )
    page.tap("#photo")
    expect(page.locator("#camera-text")).to_contain_text("The camera cannot be used")
    with page.expect_file_chooser() as chooser:
        page.tap("#shoot")
    chooser.value.set_files(ROCKET)
    expect(page.locator(".card .best .name")).to_have_text("rocket")
    expect(page.locator("#camera")).to_be_hidden()


@pytest.mark.parametrize("width", [360, 412])
def test_all_fits_and_fingers_hit_it(open_page: Open, width: int) -> None:
    page = open_page("file")
    page.set_viewport_size({"width": width, "height": 740})
    expect(page.locator("#examples img")).to_have_count(5)
    page.set_input_files("#files", [COFFEE])
    expect(page.locator(".card[data-state=done]")).to_have_count(1)
    page.evaluate("document.getElementById('camera').showModal()")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    small = page.locator("button:visible, label.button:visible, summary:visible").evaluate_all(
        """all => all
            .map((each) => [each.innerText, each.getBoundingClientRect()])
            .filter(([_, { width, height }]) => Math.min(width, height) < 43)
            .map(([text, { width, height }]) => `${text}: ${width} x ${height}`)"""
    )
    assert small == []


def test_nothing_is_asked_that_needs_a_mouse(open_page: Open) -> None:
    invitation = open_page("service").locator(".invitation")
    assert invitation.inner_text().split("\n") == ["Classify images", "one or many"]
    desktop = open_page("service", is_mobile=False, has_touch=False).locator(".invitation")
    assert desktop.inner_text().startswith("Drop images here")


def test_photo_of_an_iphone_is_answered_by_the_service_and_called_heic_by_a_page(
    open_page: Open,
) -> None:
    add_heic()
    content = encoded(Image.open(ROCKET), "HEIF", quality=95)
    photo = {"name": "IMG_1.HEIC", "mimeType": "image/heic", "buffer": content}
    page = open_page("service")
    page.set_input_files("#files", [photo])
    expect(page.locator(".card .best .name")).to_have_text("rocket")
    page = open_page("file")
    page.set_input_files("#files", [photo])
    expect(page.locator(".card .status")).to_contain_text("HEIC, which this browser does not know")
    expect(page.locator(".card .status")).to_contain_text("save the photo as JPEG")
