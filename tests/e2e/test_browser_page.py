"""The page that `thawnet export --to page` writes: a real browser, and no network to ask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from support.exported_pages import COFFEE, COINS, ROCKET, asked_about, compared, odd_photos, ready
from support.photos import DISPLAY_P3, encoded, profile_of
from support.shared import CIFAR, FLOWERS
from support.watched_pages import Watched
from support.web import Raw, ok, serving_forever
from thawnet.bundle.model import Model
from thawnet.image.decode import decode
from thawnet.image.preprocess import Fit, squared
from thawnet.webpage.facts import EXAMPLES

FORMS = ["folder", "file"]
Open = Callable[..., Page]


@pytest.fixture
def open_page(
    chromium: Browser, addresses: dict[str, str], exported_page: Path, watched: Watched
) -> Iterator[Open]:
    """Return a function that opens a form of the page; nothing else may have been asked for.

    It is the one that other tests used, unless it is to be their `own`.
    """
    watched.forget()

    def open_(form: str = "file", own: bool = False) -> Page:
        if form == "folder on disk":
            address = (exported_page / "page" / "index.html").as_uri()
        else:
            address = addresses[form]
        options = {"timeout": 30_000, "offline": form == "file"}
        if not own:
            return watched.kept(chromium, address, **options)
        page = watched.page(chromium, **options)
        page.goto(address)
        return page

    open_.expected = "ERR_INTERNET_DISCONNECTED|when fetching the script"
    yield open_
    assert [each for each in watched.wrong if not re.search(open_.expected, each)] == []
    own = (addresses["folder"], exported_page.as_uri(), "blob:", "data:")
    assert [url for url in watched.asked if not url.startswith(own)] == []


@pytest.mark.parametrize("form", FORMS)
def test_page_answers_without_a_network_as_the_library_does(
    open_page: Open, embedded_model: Model, form: str
) -> None:
    page = open_page(form)
    ready(page)
    for path in (COFFEE, COINS, ROCKET):
        said = asked_about(page, path.name, path.read_bytes())["said"]
        (answer,) = embedded_model.predict([path], explain=True)
        assert said["image"] == path.name
        assert said["predictions"][0]["class"] == answer.classes[0]
        shares = [each["probability"] for each in said["predictions"]]
        assert shares == pytest.approx(answer.probabilities, abs=0.03)  # near ties may change
        assert said["unfamiliar"] == answer.unfamiliar
        assert answer.explanation is not None
        # The library's box is that of a JPEG decoded at half its size, whose sides are rounded up.
        box = pytest.approx(answer.explanation.box, abs=0.005)
        assert said["explanation"]["box"] == box
        maps = np.array(said["explanation"]["maps"])
        assert maps.shape == answer.explanation.maps.shape
        assert np.abs(maps[0] - answer.explanation.maps[0]).mean() < 0.02


def test_pixels_are_pillows(open_page: Open, embedded_model: Model) -> None:
    page = open_page()
    photos = odd_photos(sorted(EXAMPLES.iterdir()), 16)
    same, off = compared(page, embedded_model, photos)
    assert off < 0.6  # grey levels, of JPEGs that Pillow decodes smaller and browsers do not
    assert same >= 15
    for name, content in photos.items():
        if not name.endswith("jpeg"):
            assert compared(page, embedded_model, {name: content})[1] < 0.02


def test_transparency_lies_over_white(open_page: Open, embedded_model: Model) -> None:
    image = Image.open(ROCKET).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    _, off = compared(open_page(), embedded_model, {"a.png": encoded(image, "PNG")})
    assert off < 0.6


def test_colours_of_a_profile_are_the_librarys(open_page: Open, embedded_model: Model) -> None:
    photo = Image.open(COFFEE).convert("RGB")
    p3 = profile_of(*DISPLAY_P3)
    page = open_page()
    for kind, bound in (("PNG", 1.0), ("JPEG", 1.5), ("WEBP", 1.5), ("AVIF", 2.0)):
        content = encoded(photo, kind, icc_profile=p3)
        same, off = compared(page, embedded_model, {f"a.{kind}": content})
        assert (same, off < bound) == (1, True), (kind, off)
    ignored = compared(page, embedded_model, {"a.png": encoded(photo)})
    assert ignored[1] < 0.6


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_wide_and_tall_photos_are_fitted_as_the_library_does(
    open_page: Open, embedded_model: Model, fit: Fit
) -> None:
    page = open_page()
    spec = replace(embedded_model.preprocess, fit=fit, size=96, side=96 if fit != "crop" else 110)
    for size in ((300, 100), (101, 300), (640, 480), (96, 96), (500, 7)):
        content = encoded(Image.open(ROCKET).convert("RGB").resize(size), "PNG")
        square = squared(decode(content, spec.side), spec)
        answer = asked_about(page, "a.png", content, spec)
        levels = np.array(answer["square"], np.float64).reshape(square.shape)
        # Pillow filters some tall images along y first; levels are rounded in between.
        assert np.abs(levels - square).mean() < (0.2 if size == (101, 300) else 0.002), size
        assert np.abs(levels - square).max() <= 2


def test_levels_that_a_browser_drops_get_a_sentence(open_page: Open) -> None:
    page = open_page()
    levels = np.linspace(0, 1, 120)[None].repeat(120, 0)
    for bits, refused in ((12, True), (14, True), (16, False)):
        pixels = (levels * (2**bits - 1)).astype(np.uint16)
        said = asked_about(page, "a.png", encoded(Image.fromarray(pixels)))["said"]
        assert ("a browser shows nearly black" in said.get("error", "")) == refused


@pytest.mark.parametrize("form", FORMS)
def test_person_drops_an_image_and_reads_the_answer(
    open_page: Open, embedded_model: Model, form: str
) -> None:
    page = open_page(form)
    expect(page.locator("#examples img")).to_have_count(5)
    page.set_input_files("#files", [COFFEE, COINS])
    expect(page.locator(".card[data-state=done]")).to_have_count(2)
    card = page.locator(".card").first
    (answer,) = embedded_model.predict([COFFEE])
    assert set(card.locator(".bars .name").all_inner_texts()) == set(answer.classes)
    expect(page.locator(".card").nth(1).locator(".flag")).to_be_visible()
    card.locator("button.bar").first.click()
    expect(card.locator(".overlay")).to_be_visible()
    expect(page.locator("#promise")).to_have_text("Nothing leaves this browser")
    expect(page.locator("#model")).to_have_text(re.compile("embedded · 100.classes"))
    with page.expect_download() as download:
        page.click("#download")
    saved = json.loads(Path(download.value.path()).read_text())["images"]
    assert [each["image"] for each in saved] == ["coffee.jpg", "coins.jpg"]


def test_folder_tells_how_much_of_the_network_is_there(
    chromium: Browser, addresses: dict[str, str], exported_page: Path
) -> None:
    parts = ("runtime", "network", "weights")
    sizes = [(exported_page / "page/static" / f"{name}.gz").stat().st_size for name in parts]
    with chromium.new_context() as context:
        page = context.new_page()
        held: list[Route] = []
        page.route("**/network.gz", lambda route: held.append(route))
        page.goto(addresses["folder"])
        page.set_input_files("#files", [ROCKET])
        got, whole = ((sum(sizes) - left) / 1e6 for left in (sizes[1], 0))
        expect(page.locator("#loading span")).to_have_text(
            f"Loading the network: {got:.1f} of {whole:.1f} MB"
        )
        expect(page.locator("#loading")).to_be_visible()
        held[0].continue_()
        expect(page.locator(".card .best .name")).to_have_text("rocket")
        expect(page.locator("#loading")).to_be_hidden()


def test_part_that_cannot_be_had_is_told_at_once_and_tried_again(
    chromium: Browser, addresses: dict[str, str]
) -> None:
    with chromium.new_context() as context:
        page = context.new_page()
        page.route("**/network.gz", lambda route: route.abort())
        page.goto(addresses["folder"])
        expect(page.locator("#notice-text")).to_contain_text("cannot be had (static/network.gz)")
        page.wait_for_load_state("networkidle")
        expect(page.locator("#loading")).to_be_hidden()
        page.unroute("**/network.gz")
        page.set_input_files("#files", [ROCKET])
        page.click("#again")
        expect(page.locator(".card .best .name")).to_have_text("rocket")
        expect(page.locator("#notice")).to_be_hidden()


def test_page_in_one_file_is_there_while_it_still_arrives(
    chromium: Browser, exported_page: Path
) -> None:
    answer = ok((exported_page / "page.html").read_bytes(), "Content-Type: text/html")
    with chromium.new_context() as context:
        page = context.new_page()
        server = Raw(answer[:400_000], answer[400_000:], pause=1.5)
        with serving_forever(server) as address:
            page.goto(address, wait_until="commit")
            expect(page.locator("#loading")).to_be_visible()
            assert page.evaluate("document.readyState") == "loading"
            page.set_input_files("#files", [ROCKET])
            expect(page.locator(".card .best .name")).to_have_text("rocket")
            expect(page.locator("#loading")).to_be_hidden()


def test_second_visit_needs_no_network(open_page: Open) -> None:
    page = open_page("folder", own=True)
    page.evaluate(
        """() => Promise.race([
            navigator.serviceWorker.ready.then(() => {}),
            new Promise((_, late) => setTimeout(() => late("no service worker"), 30000)),
        ])"""
    )
    page.context.set_offline(True)
    page.reload()
    page.click("#examples button:has(img[alt=rocket])")
    expect(page.locator(".card .best .name")).to_have_text("rocket")


def test_folder_opened_from_a_disk_says_what_to_do(open_page: Open) -> None:
    open_page.expected = "file:///|ERR_FAILED"
    page = open_page("folder on disk", own=True)
    page.set_input_files("#files", [ROCKET])
    expect(page.locator("#notice-text")).to_contain_text("put this folder on a web host, or export")


def test_broken_and_huge_images_get_a_sentence(open_page: Open) -> None:
    page = open_page()
    huge = encoded(Image.new("1", (9000, 8000)), "PNG")
    cut = COFFEE.read_bytes()[:400]
    for content, message in (
        (b"no image", "not an image in a format that this browser knows, or damaged"),
        (b"", "not an image in a format"),
        (cut, "damaged"),
        (huge, "9000 x 8000 pixels are too many; at most 64,000,000 are decoded"),
    ):
        assert message in asked_about(page, "x.png", content)["said"]["error"]
    page.set_input_files("#files", [{"name": "h.png", "mimeType": "image/png", "buffer": huge}])
    expect(page.locator(".card .status")).to_contain_text("are too many")


def test_camera_is_followed_live(open_page: Open) -> None:
    page = open_page("folder", own=True)
    page.evaluate(
        """() => {
            const canvas = document.createElement("canvas");
            const draw = () => canvas.getContext("2d").fillRect(0, 0, 300, 150);
            setInterval(draw, 50); // a picture that never changes is never sent
            Object.defineProperty(navigator, "mediaDevices", { value: {
                getUserMedia: async () => canvas.captureStream(10),
                enumerateDevices: async () => [{ kind: "videoinput" }],
            } });
        }"""
    )
    page.click("#photo")
    expect(page.locator("#live")).to_have_text(re.compile(r"^[a-z_]+ \d+.%"))
    page.click("#shoot")
    expect(page.locator(".card .file")).to_have_text("photo-1.jpg")


def test_policy_stops_what_is_not_the_pages_own(open_page: Open) -> None:
    open_page.expected = "Content Security Policy"
    for form in FORMS:
        page = open_page(form)
        run = page.evaluate(
            """async () => {
                const found = [];
                document.addEventListener("securitypolicyviolation",
                    (event) => found.push(event.effectiveDirective));
                const script = document.createElement("script");
                script.textContent = "window.ran = 1";
                document.body.append(script);
                await fetch("https://example.invalid/").catch(() => {});
                await new Promise((done) => setTimeout(done, 200));
                return [window.ran ?? 0, ...found.sort()];
            }"""
        )
        assert run == [0, "connect-src", "script-src-elem"]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_hundred_photos_of_odd_sizes(open_page: Open, embedded_model: Model, form: str) -> None:
    if not FLOWERS.exists():
        pytest.skip("there is no ../shared/data/flowers")
    sources = sorted(FLOWERS.rglob("*.jpg"))[::43][:95] + sorted(EXAMPLES.iterdir())
    page = open_page(form)
    ready(page)
    same, off = compared(page, embedded_model, odd_photos(sources, 100))
    print(f"{form}: the same class for {same} of 100, at most {off:.2f} grey levels off")
    assert same >= 99
    assert off < 2


@pytest.mark.slow
@pytest.mark.real
def test_three_hundred_test_images_of_cifar100(open_page: Open, embedded_model: Model) -> None:
    import pyarrow.parquet

    files = sorted(CIFAR.rglob("test*.parquet"))
    if not files:
        pytest.skip("there is no ../shared/data/cifar100")
    column = pyarrow.parquet.read_table(files[0])[0][:300].to_pylist()
    page = open_page()
    ready(page)
    photos = {f"{number}.png": each["bytes"] for number, each in enumerate(column)}
    same, off = compared(page, embedded_model, photos)
    print(f"the same class for {same} of {len(photos)}, at most {off:.2f} grey levels off")
    assert same >= 297
    assert off < 0.01
