"""The page of a report in a browser, opened as a file, as the colleague it was sent to does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from support.watched_pages import GLOBALS, PHONE, Watched
from support.whole_report import audit, whole_report
from thawnet.report.page import render, render_audit

HOSTILE = "</script><img src=https://example.com/x onerror=alert(1)>"
Open = Callable[..., Page]
# Every piece of text whose contrast to what is behind it is too small (WCAG 2, AA), as a list.
TOO_FAINT = """() => {
  const parse = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
    return { colour: [red, green, blue], alpha };
  };
  const light = (colour) => {
    const [red, green, blue] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const { colour, alpha } = parse(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return colour;
    }
    return [255, 255, 255];
  };
  const under = (text, ground) => {
    const matrix = text.closest(".matrix");
    const all = [...matrix.querySelectorAll(".cells path")];
    const box = text.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    const cell = all.find((each) => {
      const { left, right, top, bottom } = each.getBoundingClientRect();
      return left < x && x < right && top < y && y < bottom;
    });
    const { fill, fillOpacity } = getComputedStyle(cell);
    const { colour } = parse(fill);
    return colour.map((value, at) => fillOpacity * value + (1 - fillOpacity) * ground[at]);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const element = text.parentElement;
    if (!text.data.trim() || element.closest("script, title, desc, .away")) continue;
    const svg = element.closest("svg");
    const style = getComputedStyle(element);
    let ground = behind(svg ?? element);
    if (element.closest(".counts") && svg) ground = under(element, ground);
    const [a, b] = [light(parse(svg ? style.fill : style.color).colour), light(ground)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${text.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write pages for a hundred classes, for five and for the data alone, with a hostile name."""
    folder = tmp_path_factory.mktemp("pages")
    names = [HOSTILE, *(f"class {number:03d}" for number in range(1, 100))]
    (folder / "hundred.html").write_text(render(whole_report(names)), encoding="utf-8")
    (folder / "few.html").write_text(render(whole_report(names[:5])), encoding="utf-8")
    (folder / "audit.html").write_text(render_audit(*audit(HOSTILE, "b")), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    watched = Watched(lambda _message: True)  # a refusal is one
    yield watched
    watched.close()


@pytest.fixture
def open_page(chromium: Browser, files: Path, watched: Watched) -> Iterator[Open]:
    """Return a function that opens a page; nothing may be asked for, refused or go wrong.

    It opens in the tab that other tests used, unless options for another are given.
    """
    watched.forget()
    opened: list[str] = []

    def open_(
        name: str = "hundred",
        width: int = 1180,
        scheme: Literal["light", "dark"] = "light",
        **options: Any,
    ) -> Page:
        opened.append(name)
        if options:
            page = watched.page(chromium, **options)
        else:
            page = watched.tab(chromium)
            page.set_viewport_size({"width": width, "height": 740})
            page.emulate_media(media="screen", color_scheme=scheme)
        page.goto((files / f"{name}.html").as_uri())
        return page

    yield open_
    assert watched.wrong == []
    assert [url for url in watched.asked if not url.startswith(("file:", "data:"))] == []
    files_asked = [url for url in watched.asked if url.startswith("file:")]
    assert len(files_asked) == len(opened)


def rows(page: Page) -> list[str]:
    return page.locator("#per-class tbody tr:visible > th").all_inner_texts()


def test_classes_are_searched_as_one_types(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Search").fill("CLASS 04")
    assert rows(page) == [f"class 04{digit}" for digit in range(10)]
    expect(page.get_by_role("status")).to_have_text("10 of 100 classes")
    page.get_by_label("Search").fill("no such")
    assert rows(page) == []
    page.get_by_label("Search").fill("")
    assert len(rows(page)) == 100
    expect(page.get_by_role("status")).to_have_text("")


def test_classes_are_sorted_by_any_column_and_back(open_page: Open) -> None:
    page = open_page()
    column = page.get_by_role("columnheader", name="recall")
    column.get_by_role("button").click()
    expect(column).to_have_attribute("aria-sort", "ascending")
    shares = page.locator("#per-class tbody tr > td:nth-child(3)").all_inner_texts()
    values = [float(text.removesuffix(" %")) for text in shares]
    assert values == sorted(values)
    assert values[0] < values[-1]
    column.get_by_role("button").press("Enter")
    expect(column).to_have_attribute("aria-sort", "descending")
    assert page.locator("#per-class tbody tr > td:nth-child(3)").all_inner_texts() != shares
    page.get_by_role("columnheader", name="class", exact=True).get_by_role("button").click()
    expect(column).not_to_have_attribute("aria-sort", re.compile(".*"))
    assert rows(page)[1:] == [f"class {number:03d}" for number in range(1, 100)]


def test_maps_come_over_all_pictures_and_go(open_page: Open) -> None:
    page = open_page()
    maps = page.locator(".map")
    assert maps.count() > 0
    expect(maps.first).to_be_hidden()
    buttons = page.get_by_role("button", name="Show where it looked")
    buttons.first.click()
    assert all(maps.nth(place).is_visible() for place in range(maps.count()))
    for place in range(buttons.count()):
        expect(buttons.nth(place)).to_have_attribute("aria-pressed", "true")
    buttons.last.click()
    expect(maps.first).to_be_hidden()


def test_cell_of_the_matrix_is_read_out(open_page: Open) -> None:
    page = open_page("few")
    page.locator(".cells .miss path").first.hover()
    expect(page.locator("#cell")).to_have_text(re.compile(r".+ predicted as .+: \d+ of \d+"))
    row, column = page.locator(".names .lit").all_text_contents()
    expect(page.locator("#cell")).to_contain_text(f"{row} predicted as {column}:")


@pytest.mark.parametrize("name", ["hundred", "audit"])
def test_script_adds_no_name_to_a_phones_window(open_page: Open, name: str) -> None:
    page = open_page(name, **PHONE)
    own = page.evaluate(GLOBALS)
    page.close()
    assert own == open_page(name, **PHONE, java_script_enabled=False).evaluate(GLOBALS)


@pytest.mark.parametrize("name", ["hundred", "few", "audit"])
@pytest.mark.parametrize("width", [320, 360, 768, 1180])
def test_no_width_is_scrolled_sideways(open_page: Open, name: str, width: int) -> None:
    page = open_page(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("name", ["hundred", "few", "audit"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_the_light_and_in_the_dark(
    open_page: Open, name: str, scheme: str
) -> None:
    page = open_page(name, scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(15, 21, 27)" if scheme == "dark" else "rgb(245, 246, 248)")
    assert page.evaluate(TOO_FAINT) == []


def test_paper_is_white_and_has_neither_buttons_nor_maps(open_page: Open) -> None:
    page = open_page(scheme="dark")
    page.get_by_role("button", name="Show where it looked").first.click()
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in ("nav", ".maps", "#search", ".map"):
        expect(page.locator(hidden).first).to_be_hidden()
    expect(page.get_by_role("columnheader", name="recall")).to_be_visible()


def test_all_is_read_without_a_script(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    assert len(rows(page)) == 100
    expect(page.locator("#search")).to_be_hidden()
    expect(page.get_by_role("img", name="Confusion matrix of 100 classes")).to_be_visible()
