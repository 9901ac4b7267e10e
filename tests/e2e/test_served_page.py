"""The page of `thawnet serve`, as a person uses it: a real server, a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from support.exported_pages import COFFEE, COINS, ROCKET
from support.photos import encoded
from support.service import FORM, Service, command, form, picture, served
from support.watched_pages import SPARING, Watched, launched
from thawnet.bundle.model import Model, load
from thawnet.webpage.facts import EXAMPLES

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with command() as (service, _):
        yield f"http://127.0.0.1:{service.port}/"


@pytest.fixture
def open_page(chromium: Browser, address: str, watched: Watched) -> Iterator[Open]:
    """Return a function that opens the page; in the end, nothing may have left its origin."""
    watched.forget()

    def open_(at: str = address, browser: Browser = chromium, **options: Any) -> Page:
        page = watched.page(browser, **options)
        page.goto(at)
        if at == address:
            expect(page.locator("#examples img")).to_have_count(5)  # the page is ready
        return page

    yield open_
    # The browser itself notes each answer that is not 2xx, and each request that fails.
    assert [line for line in watched.wrong if not line.startswith("Failed to load resource")] == []
    outside = [
        url for url in watched.asked if not re.match(r"(http://127\.0\.0\.1:\d+/|blob:)", url)
    ]
    assert outside == []


def handed(page: Page, files: dict[str, bytes]) -> Any:
    """Return a DataTransfer with files, by name, as a drop or a paste carries it."""
    return page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, content] of Object.entries(files)) {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name));
            }
            return transfer;
        }""",
        {name: base64.b64encode(content).decode() for name, content in files.items()},
    )


def drop(page: Page, files: dict[str, bytes]) -> None:
    page.dispatch_event("#drop", "drop", {"dataTransfer": handed(page, files)})


def ask(page: Page, path: Path) -> Any:
    """Drop one photo on an empty page and return its card when it is answered."""
    drop(page, {path.name: path.read_bytes()})
    return answered(page, 1)


def answered(page: Page, count: int) -> Any:
    """Wait until so many cards have an answer or an error, and return all cards."""
    expect(page.locator(".card:not([data-state=waiting])")).to_have_count(count)
    return page.locator(".card")


def answer_by(page: Page, prediction: dict[str, Any]) -> None:
    """Let a page hear the same of every image from now on."""
    image = {"image": "x", "predictions": [prediction], "unfamiliar": True}
    reply = {"images": [image], "milliseconds": 1.0}
    page.route("**/predict*", lambda route: route.fulfill(json=reply))


def describe_by(page: Page, **changes: Any) -> None:
    """Let a page hear something else of its network, and begin again."""
    model = page.evaluate("thawnet.predictor.describe()") | changes
    page.route("**/model", lambda route: route.fulfill(json=model))
    page.reload()


def drawn(page: Page, selector: str) -> list[list[int]]:
    """Return the colours, RGBA, at the corners and in the middle of a canvas."""
    return page.locator(selector).evaluate(
        """canvas => {
            const context = canvas.getContext("2d");
            const [w, h] = [canvas.width - 1, canvas.height - 1];
            const at = [[0, 0], [w, 0], [0, h], [w, h], [Math.round(w / 2), Math.round(h / 2)]];
            return at.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
        }"""
    )


def test_dropped_image_is_answered_as_the_library_answers(open_page: Open) -> None:
    page = open_page()
    card = ask(page, COFFEE)
    expect(card).to_have_attribute("data-state", "done")
    (expected,) = load(None).predict([COFFEE])
    expect(card.locator(".best .name")).to_have_text(expected.classes[0])
    assert card.locator(".bars .name").all_inner_texts() == list(expected.classes)
    shares = [float(each.rstrip("% ")) for each in card.locator(".bars .share").all_inner_texts()]
    assert shares == pytest.approx([100 * each for each in expected.probabilities], abs=0.06)
    expect(card.locator(".flag")).to_be_hidden()
    expect(card.locator(".facts")).to_have_text(re.compile(r"^320 \u00d7 213 px · \d+ ms$"))
    expect(page.locator("#spoken")).to_contain_text("coffee.jpg: cup")
    expect(card.locator(".overlay")).to_be_hidden()  # the photo is what a person looks for
    card.locator("button.bar").first.click()
    expect(card.locator(".overlay")).to_be_visible()
    *corners, middle = drawn(page, ".overlay")
    dimmed = [8, 12, 18]
    assert all(each[:3] == pytest.approx(dimmed, abs=3) for each in corners)  # what was not seen
    assert middle[:3] != pytest.approx(dimmed, abs=30)
    assert middle[3] > 0
    expect(page.locator("#promise")).to_have_text("Nothing leaves this machine")
    expect(page.locator("#model")).to_have_text(re.compile("embedded · 100.classes"))


def test_several_images_are_a_gallery_and_a_broken_one_hurts_none(open_page: Open) -> None:
    page = open_page()
    page.add_init_script(
        """const plain = window.fetch; window.most = 0; let now = 0;
        window.fetch = async (...call) => {
            window.most = Math.max(window.most, ++now);
            try { return await plain(...call); } finally { now -= 1; }
        };"""
    )
    page.reload()
    expect(page.locator("#examples img")).to_have_count(5)
    page.evaluate("window.most = 0")
    files = [{"name": f"{i}.jpg", "mimeType": "image/jpeg"} for i in range(12)]
    for i, each in enumerate(files):
        each["buffer"] = b"no image" if i == 4 else COINS.read_bytes()
    page.set_input_files("#files", files)
    cards = answered(page, 12)
    assert cards.locator(".file").all_inner_texts() == [each["name"] for each in files]
    expect(page.locator(".card[data-state=failed] .file")).to_have_text("4.jpg")
    expect(page.locator(".card[data-state=failed] .status")).to_contain_text("not an image")
    expect(page.locator(".flag:visible")).to_have_count(11)
    expect(page.locator(".flag:visible").first).to_have_text(re.compile("do not trust this"))
    expect(page.locator("#spoken")).to_contain_text("12 images done, 1 without an answer")
    expect(page.locator("#count")).to_have_text("12, 1 without an answer")
    assert page.evaluate("window.most") == 3
    drop(page, {"rocket.jpg": ROCKET.read_bytes()})
    expect(answered(page, 13).first.locator(".best .name")).to_have_text("rocket")  # newest first
    with page.expect_download() as download:
        page.click("#download")
    saved = json.loads(Path(download.value.path()).read_text())["images"]
    assert [each["image"] for each in saved] == ["rocket.jpg", *(each["name"] for each in files)]
    assert saved[0]["predictions"][0]["class"] == "rocket"
    assert "error" in saved[5]
    page.click("#clear")
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#results")).to_be_hidden()


def test_pasted_image_is_answered(open_page: Open) -> None:
    page = open_page()
    page.evaluate(
        """transfer => document.body.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }))""",
        handed(page, {"image.png": encoded(Image.open(ROCKET))}),
    )
    expect(answered(page, 1).locator(".best .name")).to_have_text("rocket")


def test_folder_dropped_gives_the_images_in_it(open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    shutil.copy(COFFEE, folder / "more" / "b.jpg")
    shutil.copy(COINS, folder / "a.jpg")
    (folder / "notes.txt").write_text("none")
    page = open_page()
    devtools = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 300, "y": 200, "data": data}
        devtools.send("Input.dispatchDragEvent", event)
    assert answered(page, 2).locator(".file").all_inner_texts() == ["a.jpg", "b.jpg"]


def focus(page: Page) -> str:
    """Return what has the focus, in a word or two."""
    return page.evaluate(
        """() => {
            const element = document.activeElement;
            const text = element.innerText || element.querySelector?.("img")?.alt || element.id;
            return element.className === "card" ? "card" : text.split("\\n")[0].trim();
        }"""
    )


def tab_to(page: Page, expected: str) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if focus(page) == expected:
            width = page.evaluate(
                "parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
            )
            assert width >= 2, f"the focus on {expected} cannot be seen"
            return
    pytest.fail(f"Tab does not reach {expected}")


def test_keyboard_alone_is_enough(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert focus(page) == "files"  # what opens the browser's own dialog
    tab_to(page, "rocket")
    page.keyboard.press("Enter")
    answered(page, 1)
    tab_to(page, "card")
    tab_to(page, "rocket")
    page.keyboard.press("Space")
    before = drawn(page, ".overlay")
    tab_to(page, "skyscraper")
    page.keyboard.press("Space")
    rows = page.locator("button.bar")
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(rows.nth(0)).to_have_attribute("aria-pressed", "false")
    assert drawn(page, ".overlay") != before
    page.keyboard.press("Space")  # once more: the photo alone
    expect(rows.nth(1)).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".overlay")).to_be_hidden()
    page.keyboard.press("Delete")
    expect(page.locator(".card")).to_have_count(0)
    assert focus(page) == "files"


def test_heat_maps_are_turned_on_and_that_is_remembered(open_page: Open) -> None:
    page = open_page()
    coffee = "#examples button:has(img[alt=coffee])"
    page.click(coffee)
    answered(page, 1)
    assert page.locator(".overlay:visible").count() == 0
    page.click("#map")
    expect(page.locator(".overlay")).to_be_visible()
    page.click(coffee)
    answered(page, 2)
    expect(page.locator(".overlay:visible")).to_have_count(2)
    expect(page.locator("button.bar[aria-pressed=true]")).to_have_count(2)
    page.reload()
    page.click(coffee)
    answered(page, 1)
    expect(page.locator(".overlay")).to_be_visible()
    page.click("#map")
    expect(page.locator(".overlay")).to_be_hidden()
    expect(page.locator("button.bar[aria-pressed=true]")).to_have_count(0)


def test_card_names_each_class_once(open_page: Open) -> None:
    page = open_page()
    names = ask(page, COFFEE).locator(".answer .name").all_inner_texts()
    assert sorted(names) == sorted(set(names))


def test_answers_of_a_row_stand_in_a_line_whatever_the_files_are_called(open_page: Open) -> None:
    page = open_page()
    long = f"{'a long name, as phones and messengers write them ' * 3}.jpg"
    drop(page, {name: ROCKET.read_bytes() for name in (long, "b.jpg")})
    tops = (
        answered(page, 2)
        .locator(".best")
        .evaluate_all("all => all.map((each) => each.getBoundingClientRect().top)")
    )
    assert tops[0] == pytest.approx(tops[1], abs=1)
    name = page.locator(".card .file").first
    cut = "name => name.scrollWidth > name.clientWidth"
    assert name.evaluate(cut)
    page.locator(".card").first.focus()
    assert not name.evaluate(cut)  # a card that was chosen shows all of it


def test_answers_get_the_room_of_the_invitation(open_page: Open) -> None:
    page = open_page()
    start = page.locator("#start")
    before = start.bounding_box()["height"]
    ask(page, COFFEE)
    assert start.bounding_box()["height"] < 80 < before / 2
    page.click("#clear")
    assert start.bounding_box()["height"] == before


def test_error_shows_no_empty_frame(open_page: Open) -> None:
    page = open_page()
    drop(page, {"notes.jpg": b"no image", "cut.jpg": COFFEE.read_bytes()[:400]})
    cards = answered(page, 2)
    for place in range(2):
        expect(cards.nth(place).locator(".picture")).to_be_hidden()
        assert cards.nth(place).bounding_box()["height"] < 160


def test_phone_shows_everything_without_scrolling_sideways(open_page: Open) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    answer_by(page, {"class": "a_long_name" * 12, "probability": 0.9})
    drop(page, {f"{'photo' * 30}.jpg": COFFEE.read_bytes()})
    answered(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ends = page.locator("main :visible").evaluate_all(
        "all => all.map((each) => each.getBoundingClientRect().right)"
    )
    assert max(ends) <= 360
    hidden = page.locator(".card, .card :visible:not(.file)").evaluate_all(
        "all => all.filter((each) => each.scrollWidth > each.clientWidth && each.clientWidth)"
        ".map((each) => each.className)"
    )
    assert hidden == []  # long names wrap


def luminance(page: Page, selector: str) -> float:
    colour = page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / (3 * 255)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(open_page: Open, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    ask(page, COFFEE)
    levels = [luminance(page, "body"), luminance(page, ".card")]
    assert all(each > 0.9 for each in levels) if scheme == "light" else max(levels) < 0.2


def test_names_are_text_and_never_markup(open_page: Open) -> None:
    page = open_page()
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    answer_by(page, {"class": markup, "probability": 1.0})
    drop(page, {f"{markup.replace('/', '')}.jpg": COFFEE.read_bytes()})
    card = answered(page, 1)
    expect(card.locator(".best .name")).to_have_text(markup)
    expect(card.locator(".file")).to_contain_text("<img src=x")
    expect(page.locator(".card img, .card script")).to_have_count(0)


def test_hebrew_names_stand_in_their_order(open_page: Open) -> None:
    names = ["\u05db\u05dc\u05d1 1", "\u05d7\u05ea\u05d5\u05dc 2", "\u05e1\u05d5\u05e1"]
    page = open_page()
    describe_by(page, classes=names, name=names[0])
    page.locator("#known summary").click()
    shown = page.locator("#known bdi")
    expect(shown).to_have_text(names)
    lefts = shown.evaluate_all("all => all.map((each) => each.getBoundingClientRect().left)")
    assert lefts == sorted(lefts)
    edges = page.locator("#model").evaluate(
        """line => {
            const after = document.createRange();
            after.selectNode(line.childNodes[1]);
            const name = line.querySelector("bdi").getBoundingClientRect();
            return [name.right, after.getBoundingClientRect().left];
        }"""
    )
    assert edges[0] <= edges[1] + 1


def test_picture_stands_upright(open_page: Open) -> None:
    image = Image.new("RGB", (60, 40), "red")
    image.paste("blue", (0, 0, 30, 40))  # the left half, which orientation 6 turns to the top
    exif = Image.Exif()
    exif[274] = 6
    page = open_page()
    drop(page, {"turned.png": encoded(image, exif=exif)})
    expect(answered(page, 1).locator(".facts")).to_contain_text("40 \u00d7 60 px")
    assert drawn(page, ".image")[0][:3] == [0, 0, 255]
    assert drawn(page, ".image")[3][:3] == [255, 0, 0]


def test_format_that_browsers_can_not_draw_is_answered_all_the_same(open_page: Open) -> None:
    page = open_page()
    drop(page, {"rocket.tiff": encoded(Image.open(ROCKET), "TIFF")})
    card = answered(page, 1)
    expect(card.locator(".best .name")).to_have_text("rocket")
    expect(card.locator(".placeholder")).to_have_text("TIFF: no preview")


def test_file_that_is_too_large_is_told_so_and_not_sent(open_page: Open) -> None:
    page = open_page()
    limits = page.evaluate("thawnet.predictor.describe()")["limits"]
    describe_by(page, limits={**limits, "body_bytes": 2 * 2**20})
    expect(page.locator("#examples img")).to_have_count(5)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    drop(page, {"large.jpg": bytes(3 * 2**20)})
    expect(answered(page, 1).locator(".status")).to_have_text(
        "This file has 3.1\u00a0MB; at most 2.1\u00a0MB are taken."
    )
    assert not any("predict" in url for url in sent)


def test_busy_service_is_asked_again(open_page: Open) -> None:
    page = open_page()
    calls: list[int] = []

    def busy_at_first(route: Route) -> None:
        calls.append(1)
        if len(calls) > 1:
            route.continue_()
        else:
            error = {"error": "1,024 images are waiting already"}
            route.fulfill(status=503, headers={"Retry-After": "1"}, json=error)

    page.route("**/predict*", busy_at_first)
    drop(page, {"rocket.jpg": ROCKET.read_bytes()})
    expect(page.locator(".card .status")).to_have_text("The service is busy; trying again in 1 s")
    expect(answered(page, 1).locator(".best .name")).to_have_text("rocket")


def test_nothing_is_lost_when_the_service_stops(open_page: Open) -> None:
    page = open_page()
    page.route("**/predict*", lambda route: route.abort())
    drop(page, {f"{i}.jpg": ROCKET.read_bytes() for i in range(6)})
    expect(page.locator("#notice-text")).to_contain_text("does not answer")
    expect(page.locator(".card[data-state=waiting]")).to_have_count(6)
    page.unroute("**/predict*")
    page.click("#again")
    answered(page, 6)
    expect(page.locator(".card[data-state=done]")).to_have_count(6)
    expect(page.locator("#notice")).to_be_hidden()


def test_page_waits_for_a_service_that_is_not_there_yet(open_page: Open) -> None:
    page = open_page()
    page.route("**/model", lambda route: route.abort())
    page.reload()
    expect(page.locator("#notice-text")).to_contain_text("does not answer")
    drop(page, {"rocket.jpg": ROCKET.read_bytes()})
    expect(page.locator(".card .status")).to_have_text("Waiting")
    page.unroute("**/model")
    page.click("#again")
    expect(answered(page, 1).locator(".best .name")).to_have_text("rocket")


def test_network_that_tells_less_gets_a_page_that_promises_less(open_page: Open) -> None:
    page = open_page()
    describe_by(page, explains=False, flags_unfamiliar=False, examples=[])
    card = ask(page, COINS)
    expect(card.locator(".bar")).to_have_count(5)
    expect(card.locator("button.bar")).to_have_count(0)
    expect(page.locator("#map")).to_be_hidden()
    expect(page.locator("#try")).to_be_hidden()
    expect(page.locator("#reading strong")).to_have_text(["Accuracy", "Probability", "Network"])


def test_page_tells_how_accurate_the_network_is_and_names_few_classes(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#reading")).to_contain_text(
        "79\u00a0% of 10,000 images that were new to the network were named right "
        "(95\u00a0% interval 78\u00a0% to 80\u00a0%)."
    )
    describe_by(page, classes=["daisy", "rose"], accuracy=None)
    expect(page.locator("#model")).to_have_text("embedded · daisy, rose")
    expect(page.locator("#reading")).not_to_contain_text("named right")


def test_nothing_is_promised_before_it_is_known(chromium: Browser, address: str) -> None:
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        expect(page.locator(".promise")).to_be_hidden()
        expect(page.locator("noscript .notice")).to_contain_text("needs JavaScript")


def test_token_is_asked_for_once(open_page: Open, embedded_model: Model) -> None:
    examples = {path.name: path for path in EXAMPLES.iterdir()}
    with served(embedded_model, token="open sesame", examples=examples) as service:
        page = open_page(f"http://127.0.0.1:{service.port}/")
        drop(page, {"rocket.jpg": ROCKET.read_bytes()})
        expect(page.locator("#token")).to_be_focused()
        expect(page.locator(".primary:visible")).to_have_text(["Unlock"])
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#notice-text")).to_have_text("The service refused this token.")
        page.keyboard.type("open sesame")
        page.keyboard.press("Enter")
        expect(answered(page, 1).locator(".best .name")).to_have_text("rocket")
        expect(page.locator("#examples img")).to_have_count(5)
        page.reload()
        expect(page.locator("#examples img")).to_have_count(5)
        expect(page.locator("#notice")).to_be_hidden()


def test_page_of_another_machine_says_where_images_go(chromium: Browser, address: str) -> None:
    with chromium.new_context() as context:
        page = context.new_page()

        def elsewhere(route: Route) -> None:
            here = route.request.url.replace("http://photos.example/", address)
            route.fulfill(response=context.request.get(here))

        page.route("http://photos.example/**", elsewhere)
        page.goto("http://photos.example/")
        expect(page.locator("#promise")).to_have_text("Images go only to photos.example")
        expect(page.locator("#examples img")).to_have_count(5)  # nothing is on its way any more


def test_answers_are_copied_as_json(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, COINS)
    page.click("#copy")
    expect(page.locator("#copy")).to_have_text("Copied")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    body = form(("coins.jpg", COINS.read_bytes()))
    said = Service(urlsplit(page.url).port).ask("POST", "/predict?top_k=5", body, FORM).json
    assert copied == {"images": said["images"]}  # as the API answers
    assert copied["images"][0]["unfamiliar"] is True


def test_photo_is_taken_with_the_camera(chromium: Browser, open_page: Open) -> None:
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with launched(chromium.browser_type, *SPARING, *fake) as browser:
        page = open_page(browser=browser)
        page.click("#photo")
        expect(page.locator("#shoot")).to_be_enabled()
        page.click("#shoot")
        expect(answered(page, 1).locator(".file")).to_have_text("photo-1.jpg")
        expect(page.locator("#camera")).to_be_hidden()
        expect(page.locator(".card")).to_have_attribute("data-state", "done")


def test_visitor_names_the_right_class_and_can_change_it(
    chromium: Browser, colours: Path, tmp_path: Path, watched: Watched
) -> None:
    folder = tmp_path / "photos"
    with command("--model", colours, "--collect", folder) as (service, _):
        page = watched.page(chromium)
        page.goto(f"http://127.0.0.1:{service.port}/")
        expect(page.locator("#model")).to_contain_text("red")
        drop(page, {"mine.png": picture("red")})
        card = answered(page, 1)
        note = card.locator(".teach .fine")
        expect(note).to_contain_text("are kept to train the network")
        assert not list(folder.glob("*/*"))
        assert card.locator("select").input_value() == "red"
        card.get_by_role("button", name="Keep photo").click()
        expect(note).to_have_text("Kept as \u2068red\u2069.")
        card.locator("select").select_option("None of these")
        card.get_by_role("button", name="Change").click()
        expect(note).to_have_text("Kept as none of these.")
    assert [file.parent.name for file in folder.glob("*/*")] == ["unsure"]


def test_a_page_of_a_service_that_keeps_nothing_asks_for_nothing(open_page: Open) -> None:
    card = ask(open_page(), COFFEE)
    expect(card.locator(".teach")).to_be_hidden()
