"""What computes in an exported page: threads where its host allows them, or a graphics card.

The card is Chromium's in software, which WebGPU calls a fallback adapter: pages leave it alone, so
a script of the tests calls it a real one, and tells the time as if the processor were slower still.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from support.exported_pages import COFFEE, asked_about, compared, odd_photos, ready
from support.watched_pages import Watched, launched
from thawnet.bundle.model import Model
from thawnet.webpage.facts import EXAMPLES

pytestmark = pytest.mark.slow  # graphics cards in software, and a process for each page

ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
Open = Callable[..., Page]
# slower: seconds that each turn of the processor takes more by the clock. off: of its first logit.
FAKE = """
(({ slower, off }) => {
    Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
    window.turns = { processor: 0, card: 0 };
    const { submit } = GPUQueue.prototype;
    GPUQueue.prototype.submit = function (...all) {
        turns.card += 1;
        return submit.apply(this, all);
    };
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...all) {
        window.device = await requestDevice.apply(this, all);
        return window.device;
    };
    const now = performance.now.bind(performance);
    let late = 0;
    performance.now = () => now() + late;
    const wrapped = (session) => ({
        async run(...all) {
            turns.processor += 1;
            late += 1000 * slower;
            const found = await session.run(...all);
            found.logits.data[0] += off;
            return found;
        },
    });
    let runtime;
    window.thawnet = {};
    Object.defineProperty(thawnet, "ort", {
        get: () => runtime,
        set(ort) {
            const create = async (...all) => wrapped(await ort.InferenceSession.create(...all));
            runtime = { ...ort, InferenceSession: { create } };
        },
    });
})
"""


@pytest.fixture(scope="module")
def with_card(chromium: Browser) -> Iterator[Browser]:
    """Yield a browser that has WebGPU, if only in software."""
    browser = launched(chromium.browser_type, "--enable-unsafe-webgpu")
    yield browser
    browser.close()


@pytest.fixture
def open_page(exported_page: Path, serve: Callable[..., str]) -> Iterator[Open]:
    """Return a function that opens a page in a browser, by a host that sends some headers."""
    watched = Watched()

    def open_(
        browser: Browser, path: str = "page/", headers: dict[str, str] | None = None, init: str = ""
    ) -> Page:
        page = watched.page(browser, 60_000)
        page.add_init_script(init)
        page.goto(f"{serve(exported_page, headers)}/{path}")
        return page

    open_.asked = watched.asked
    yield open_
    watched.close()
    expected = "ERR_INTERNET_DISCONNECTED|when fetching the script"
    assert [each for each in watched.wrong if not re.search(expected, each)] == []


@pytest.fixture
def open_with_card(open_page: Open, with_card: Browser) -> Open:
    """Return a function that opens the folder where there is a card that counts as real."""

    def open_(slower: float = 60, off: float = 0) -> Page:
        page = open_page(with_card, init=f"{FAKE}({json.dumps({'slower': slower, 'off': off})})")
        if not page.evaluate("navigator.gpu?.requestAdapter().then(Boolean)"):
            pytest.skip("this Chromium has no WebGPU in software")
        return page

    return open_


def turns(page: Page) -> dict[str, int]:
    """Ask about a picture, and return how often the processor and the card were used for it."""
    before = page.evaluate("({ ...turns })")
    asked_about(page, COFFEE.name, COFFEE.read_bytes())
    after = page.evaluate("({ ...turns })")
    return {name: after[name] - before[name] for name in before}


def wait_until(page: Page, reached: Callable[[], bool]) -> None:
    """Wait a hundred seconds; the page's policy forbids Playwright's way."""
    for _ in range(100):
        if reached():
            return
        page.wait_for_timeout(1000)
    pytest.fail("it never came")


def wait_for_card(page: Page) -> None:
    """Wait until pictures are computed on the card, and nowhere else."""
    wait_until(page, lambda: turns(page)["processor"] == 0)


@pytest.mark.parametrize(
    ("path", "headers", "workers"),
    [
        ("page/", ISOLATED, 3),
        ("page/", None, 0),
        ("page.html", ISOLATED, 0),
    ],
    ids=["isolated", "ordinary", "one isolated file"],
)
def test_threads_where_the_host_allows_them(
    open_page: Open,
    chromium: Browser,
    embedded_model: Model,
    path: str,
    headers: dict[str, str] | None,
    workers: int,
) -> None:
    cores = "Object.defineProperty(navigator, 'hardwareConcurrency', { get: () => 6 })"
    page = open_page(chromium, path, headers, cores)
    ready(page)
    assert page.evaluate("crossOriginIsolated") == (headers is not None)
    said = asked_about(page, COFFEE.name, COFFEE.read_bytes())["said"]
    (answer,) = embedded_model.predict([COFFEE])
    assert said["predictions"][0]["class"] == answer.classes[0]
    assert len(page.workers) == workers


def test_card_in_software_costs_nothing(open_page: Open, with_card: Browser) -> None:
    page = open_page(with_card)
    asked_about(page, COFFEE.name, COFFEE.read_bytes())
    page.wait_for_timeout(500)
    assert [url for url in open_page.asked if re.search("runtime-gpu|ort-gpu", url)] == []


def test_card_answers_as_the_library_does(open_with_card: Open, embedded_model: Model) -> None:
    page = open_with_card()
    wait_for_card(page)
    page.context.set_offline(True)
    photos = odd_photos(sorted(EXAMPLES.iterdir()), 8)
    same, _ = compared(page, embedded_model, photos)
    assert same >= 7
    (answer,) = embedded_model.predict([COFFEE], explain=True)
    said = asked_about(page, COFFEE.name, COFFEE.read_bytes())["said"]
    shares = [each["probability"] for each in said["predictions"]]
    assert shares == pytest.approx(answer.probabilities, abs=0.03)
    assert answer.explanation is not None
    assert abs(said["explanation"]["maps"][0] - answer.explanation.maps[0]).mean() < 0.02
    assert turns(page)["processor"] == 0


def test_lost_card_is_replaced_by_the_processor(
    open_with_card: Open, embedded_model: Model
) -> None:
    page = open_with_card()
    wait_for_card(page)
    page.evaluate("device.destroy()")
    said = asked_about(page, COFFEE.name, COFFEE.read_bytes())["said"]
    assert said["predictions"][0]["class"] == embedded_model.predict([COFFEE])[0].classes[0]
    assert turns(page) == {"processor": 1, "card": 0}


@pytest.mark.parametrize(("slower", "off"), [(0, 0), (60, 5)], ids=["slow card", "wrong card"])
def test_card_that_is_slower_or_wrong_is_not_taken(
    open_with_card: Open, slower: float, off: float
) -> None:
    page = open_with_card(slower, off)
    asked_about(page, COFFEE.name, COFFEE.read_bytes())
    least = 7 if slower == 0 else 2  # turns: the answer, and those that show it
    wait_until(page, lambda: page.evaluate("turns.processor") >= least)
    page.wait_for_timeout(500)
    assert turns(page) == {"processor": 1, "card": 0}


def test_second_visit_has_the_card_without_a_network(open_with_card: Open) -> None:
    page = open_with_card()
    wait_until(page, lambda: page.evaluate("Boolean(navigator.serviceWorker.controller)"))
    wait_for_card(page)
    page.context.set_offline(True)
    for name in ("ort-gpu.js", "runtime-gpu.gz"):
        assert page.evaluate(f"caches.match('static/{name}').then(Boolean)")
    page.reload()
    wait_for_card(page)
