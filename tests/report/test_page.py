"""The page of a report: complete, escaped, and closed to the world outside its file."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from support.results import result_of
from support.whole_report import audit, picture, whole_report
from thawnet.core.text import duration
from thawnet.report.content import ClassRow, ConfusionMatrix, Report
from thawnet.report.markup import isolated, prose, short, shortened
from thawnet.report.matrix import MOST, Matrix
from thawnet.report.page import SECTIONS, render, render_audit

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "breaks out": "\"'></title></style></svg><img src=x onerror=alert(1)>",
    "template": "{{ 7 * 7 }}{% include 'x' %}",
    "right to left": "\u202eلوحة\u202c",
    "control": "a\x00b\x1b[31m\udc80",
    "long": "x" * 10_000,
}
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """All elements of a page with their attributes, all its text, and what is never closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.inline: dict[str, str] = {}
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] in ("style", "script"):
            self.inline[self.inside[-1]] = data
        else:
            self.text += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def names(count: int) -> list[str]:
    return [f"class {number:03d}" for number in range(count)]


def bare() -> Report:
    """Return a report of a run of which next to nothing is known."""
    return dataclasses.replace(
        whole_report(["cat", "dog"]),
        result=result_of("test", 0.75, 8, standing="as good"),
        flattered=True,
        more=None,
        classes=[ClassRow("cat", 4, 0.5, 1.0, "dog", 2), ClassRow("dog", 4, 1.0, None, "cat", 0)],
        rivals=[],
        facts=[],
        pairs=[],
        mistakes=[],
        hits=[],
        suspects=None,
        audit=None,
        missing=[],
    )


@pytest.fixture(scope="module")
def html() -> str:
    return render(whole_report(names(100)))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(params=["report", "audit"])
def either(request: pytest.FixtureRequest, page: Page) -> Page:
    """Return the page of a report, and that of data alone."""
    return page if request.param == "report" else Page(render_audit(*audit("a", "b")))


def test_says_what_a_report_has_to(page: Page) -> None:
    for told in (
        "71.35 %",
        "95 % interval 70.46 % to 72.23 %, 10,000 images",
        "+70.35",
        "\u22123.65",
        "Divided by the temperature 0.76",
        "1 h 23 min",
        "12 of 100 images",
        "found in 0.4 s",
        "reading images 1.2 s",
        "the 1 clearest of 47,500",
        "1 of 7 groups",
    ):
        assert told in re.sub(r"\s+", " ", page.text), told
    anchors = {each["id"] for each in page.all("section")}
    assert anchors == set(SECTIONS)
    assert {each["href"] for each in page.all("a")} == {f"#{anchor}" for anchor in anchors}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_name_is_text(kind: str) -> None:
    hostile = HOSTILE[kind]
    found = Page(render(whole_report([hostile, f"{hostile} 2", "plain"])))
    harmless = Page(render(whole_report(["one", "one 2", "plain"])))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in harmless.elements]
    for (_, mine), (_, other) in zip(found.elements, harmless.elements, strict=True):
        assert mine.keys() ^ other.keys() <= {"title", "class"}
    assert shortened(hostile) in found.text
    assert shortened(hostile) in Page(render_audit(*audit(hostile, "b"))).text


def test_hebrew_and_arabic_names_swap_no_places_with_their_neighbours() -> None:
    first, second = "\u05db\u05dc\u05d1 1", "\u0642\u0637\u0629"
    text = f"2 classes have few: {first} (3), {second} (5), cat (7) & more."
    told = prose(text, ["cat", second, first, f"{first} x"])
    assert told == text.replace(first, isolated(first)).replace(second, isolated(second))
    assert (isolated(second), isolated("cat")) == (f"\u2068{second}\u2069", "cat")
    html = render(whole_report([first, second, "cat"]))
    # Each is isolated, in an element of its own, or in the command, which is to be copied.
    apart = r"<(bdi|text)[^>]*>[^<]*</\1>|\u2068[^\u2069]*\u2069|<dd>thawnet train.*</dd>"
    assert second not in re.sub(apart, "", html)


def test_page_is_utf_8_whatever_the_names() -> None:
    page = render(whole_report([HOSTILE["control"], "b"]))
    assert "a\ufffdb\ufffd[31m\ufffd" in page.encode().decode()


def test_title_has_room_for_a_long_name() -> None:
    assert f"network on {'n' * 100}" in Page(render(whole_report(["n" * 100, "b"]))).text


def test_long_name_is_cut_in_the_middle_and_told_by_the_tooltip() -> None:
    page = Page(render(whole_report([f"start{'x' * 10_000}end", "b"])))
    shown = [each.get("title") for each in page.all("bdi") if each.get("title")]
    assert shown
    for title in shown:
        assert title is not None
        assert "start" in title
        assert title.endswith(("end", ".png"))
        assert len(title) == 300


def test_nothing_is_asked_for_outside_the_file(page: Page, html: str) -> None:
    links = ("src", "href", "srcset", "action", "data", "poster", "background")
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in links:
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/", "#")), target
    assert "@import" not in html
    assert set(re.findall(r"url\(([^)]*)\)", html)) <= {"#heat"}
    assert "://" not in page.inline["style"] + page.inline["script"]


def test_policy_allows_its_own_style_and_script_alone(either: Page) -> None:
    policy = next(each["content"] for each in either.all("meta") if "http-equiv" in each)
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("img-src") == "data:"
    for kind in ("style", "script"):
        assert len(either.all(kind)) == 1
        digest = hashlib.sha256(either.inline[kind].encode()).digest()
        assert rules.pop(f"{kind}-src") == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert rules == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    tags = [tag for tag, _ in either.elements]
    assert tags.index("meta") < tags.index("style")
    assert either.elements[tags.index("meta") + 1][1].get("http-equiv") == "Content-Security-Policy"


def test_everything_seen_has_words(either: Page) -> None:
    assert all("alt" in each for each in either.all("img"))
    for each in either.all("svg"):
        assert each.get("aria-hidden") == "true" or (each["role"] == "img" and each["aria-label"])
    assert all(each["scope"] in ("row", "col") for each in either.all("th"))
    assert all(each.get("aria-label") for each in either.all("div") if "tabindex" in each)
    levels = [int(tag[1]) for tag, _ in either.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise([0, *levels]))
    ids = [attributes["id"] for _, attributes in either.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(each["aria-labelledby"] in ids for each in either.all("section"))


def test_picture_stays_small_and_sharp_and_its_map_lies_over_its_box() -> None:
    report = whole_report(["a", "b"])
    report = dataclasses.replace(report, pairs=[], hits=[], suspects=None, audit=None)
    for side, look in ((32, "image small"), (128, "image")):
        shown = dataclasses.replace(report.mistakes[0], picture=picture("p.png", side))
        page = Page(render(dataclasses.replace(report, mistakes=[shown])))
        image, over = page.all("image")
        assert image["class"] == look
        assert over["class"] == "map"
        at = tuple(float(over[name] or "") for name in ("x", "y", "width", "height"))
        assert at == (side / 8, 0, side * 3 / 4, side)


def test_report_without_all_that_may_be_missing() -> None:
    page = Page(render(bare()))
    assert "never predicted" in page.text
    assert "These images also chose the epoch" in page.text
    assert "Divided by the temperature" not in page.text  # none was fitted
    assert "with 8 in all" in page.text
    assert not page.all("image")
    assert not {"examples", "suspects", "data"} & {e["id"] for e in page.all("section")}
    assert len(page.elements) < 400


def matrix_of(confusion: ConfusionMatrix) -> str:
    page = render(dataclasses.replace(whole_report(["a", "b"]), confusion=confusion))
    svg = re.search(r'(?s)<svg class="matrix (few|some|many)".*?</svg>', page)
    assert svg
    return svg[0]


@pytest.mark.parametrize("count", [2, 20, 21, 100, 1000])
def test_matrix_tells_each_cell_that_it_draws(count: int) -> None:
    confusion = whole_report(names(count)).confusion
    page = Page(matrix_of(confusion))
    measures = Matrix(confusion)
    cells = [each for each in page.all("path") if each.get("class") != "rules"]
    assert len(measures.names) == min(count, MOST)
    assert len(cells) == len(page.all("title")) == len(measures.cells)
    if count <= MOST:
        assert len(cells) == np.count_nonzero(confusion.counts)
    counted = count <= 20
    assert (f"{confusion.counts[0, 0]}" in re.findall(r"\d+", page.text)) >= counted
    texts = 2 * len(measures.names) + (len(cells) if counted else 0)
    assert len(page.all("text")) == texts


def test_matrix_of_many_classes_keeps_those_with_the_most_mistakes() -> None:
    counts = np.diag(np.full(300, 10))
    counts[np.arange(0, 300, 3), np.arange(1, 301, 3) % 300] = 5
    confusion = ConfusionMatrix(names(300), counts, counts.sum(axis=1))
    assert Matrix(confusion).names == [f"class {number:03d}" for number in range(0, 300, 3)]
    # The answers of a class are told as shares of all its images, also where those are not drawn.
    assert "class 000 right: 10 of 15" in matrix_of(confusion)


def test_matrix_tells_strong_confusions_from_weak_ones() -> None:
    counts = np.array([[50, 40, 1], [0, 90, 0], [0, 0, 90]])
    svg = matrix_of(ConfusionMatrix(["a", "b", "c"], counts, counts.sum(axis=1)))
    assert re.search(
        r'class="miss s8"><path d="M1 0h1v1h-1z"><title>a predicted as b: 40 of 91<', svg
    )
    assert re.search(
        r'class="miss s2"><path d="M2 0h1v1h-1z"><title>a predicted as c: 1 of 91<', svg
    )


def test_report_of_a_thousand_classes_and_its_pictures_stays_under_three_megabytes() -> None:
    report = whole_report(names(1000))
    shown = report.mistakes * 4
    assert len(render(dataclasses.replace(report, mistakes=shown)).encode()) < 3e6


def test_hundred_classes_stay_under_a_megabyte(html: str) -> None:
    assert len(html.encode()) < 1e6


def test_times_and_lengths_in_few_characters() -> None:
    assert [duration(value) for value in (0.012, 1.26, 59.6, 119.7, 7384)] == [
        "12 ms",
        "1.3 s",
        "60 s",
        "2 min 00 s",
        "2 h 03 min",
    ]
    assert [short(value) for value in (1.0, 2.346, 54)] == ["1", "2.35", "54"]
