"""Pages in a browser, and all that they asked for and complained of."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, BrowserType, ConsoleMessage, Page

# The headless shell is the same engine without windows: a page takes a quarter of the time.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# Without a graphics card, which the processor would have to play, and without compiling WebAssembly
# a second time for speed, which takes longer than what the tests ask of it.
SPARING = ("--disable-gpu", "--disable-software-rasterizer", "--js-flags=--liftoff-only")

# A phone that Chromium emulates: touch, no mouse, and the names that mobile browsers have on
# `window`, such as the read-only `orientation`.
PHONE = {
    "user_agent": "Mozilla/5.0 (Linux; Android 14; Pixel 7) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
# The names on `window` with what stands behind them, which shows one that was replaced.
GLOBALS = """Object.fromEntries(
    Object.entries(Object.getOwnPropertyDescriptors(window)).map(
        ([name, { get, value }]) => [name, get ? `get ${get}` : String(value)],
    ),
)"""


def launched(kind: BrowserType, *flags: str) -> Browser:
    """Start Chromium with further flags. The caller closes it."""
    return kind.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])


# Leaves a page as it was opened, but for its network, which is there already.
EMPTY = """() => {
    document.getElementById("clear").click();
    for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
    window.scrollTo(0, 0);
}"""


class Watched:
    """Opens pages, each in a context of its own.

    asked: addresses that were asked for. wrong: errors of scripts, and what the console said of
    which `counts` says that it is wrong; by default what it calls an error.
    """

    def __init__(
        self, counts: Callable[[ConsoleMessage], bool] = lambda message: message.type == "error"
    ) -> None:
        self.asked: list[str] = []
        self.wrong: list[str] = []
        self.opened: list[BrowserContext] = []
        self._counts = counts
        self._tabs: dict[str, Page] = {}

    def page(self, browser: Browser, timeout: int = 20_000, **options: Any) -> Page:
        """Return an empty page that waits `timeout` ms at most; options: of its context."""
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 860}, **options})
        self.opened.append(context)
        page = context.new_page()
        page.set_default_timeout(timeout)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", self._heard)
        return page

    def kept(self, browser: Browser, address: str, **options: Any) -> Page:
        """Return the page at an address, open since an earlier call, with nothing on it.

        It takes a second or two until a page has its network: this is for tests that only use it.
        """
        page = self.tab(browser, address, **options)
        if page.url == "about:blank":
            page.goto(address)
        else:
            page.evaluate(EMPTY)
        return page

    def tab(self, browser: Browser, name: str = "", **options: Any) -> Page:
        """Return the page of a name, which stays as the test before left it; see `page`."""
        if name not in self._tabs:
            self._tabs[name] = self.page(browser, **options)
        return self._tabs[name]

    def forget(self) -> None:
        """Begin again for another test: all pages but the kept ones are closed."""
        stay = [page.context for page in self._tabs.values()]
        for context in self.opened:
            if context not in stay:
                context.close()
        self.opened = stay
        self.asked.clear()
        self.wrong.clear()

    def close(self) -> None:
        """Close all contexts."""
        for context in self.opened:
            context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if self._counts(message):
            self.wrong.append(message.text)
