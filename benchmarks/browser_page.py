"""Seconds until an exported page answers in Chromium, and its predictions per second.

    python benchmarks/browser_page.py [--model RUN] [--images 200]

Measures both forms of the page in headless Chromium: seconds from opening it to the first answer,
the median of five openings with nothing cached; then predictions per second of 96 px PNG photos,
one after another, decoding and class maps included. Finally compares the folder in one thread and
in several (as on a host that isolates it from other origins), by turns.
"""

from __future__ import annotations

import base64
import functools
import http.server
import io
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tyro
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from thawnet import cli, embedded
from thawnet.webpage.facts import EXAMPLES

OPENINGS = 5
TURNS = 4
PHOTO = EXAMPLES / "cat.jpg"
RUN = """async ([content, count]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const file = new File([bytes], "a.png");
    const ask = () => thawnet.predictor.predict([file], { topK: 5, explain: true });
    for (let i = 0; i < 10; i += 1) await ask();
    const started = performance.now();
    for (let i = 0; i < count; i += 1) await ask();
    return (1000 * count) / (performance.now() - started);
}"""


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves files without logging."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Discard the message."""


class IsolatedFiles(Files):
    """Serves files like a host that lets a page use several threads."""

    def end_headers(self) -> None:
        """Isolate the page from other origins."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def served(folder: str, kind: type[Files]) -> str:
    """Serve a folder until this process ends; return the address."""
    handler = functools.partial(kind, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


@contextmanager
def new_page(browser: Browser) -> Iterator[Page]:
    """Yield a page with an empty cache."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def first_answer(browser: Browser, address: str) -> float:
    """Return seconds from opening a page to its first answer."""
    with new_page(browser) as page:
        started = time.perf_counter()
        page.goto(address)
        page.set_input_files("#files", PHOTO)
        page.wait_for_selector(".card[data-state=done]")
        return time.perf_counter() - started


def rate(browser: Browser, address: str, count: int) -> float:
    """Return predictions per second."""
    content = io.BytesIO()
    Image.open(PHOTO).convert("RGB").resize((96, 96)).save(content, "PNG")
    with new_page(browser) as page:
        page.goto(address)
        return float(page.evaluate(RUN, [base64.b64encode(content.getvalue()).decode(), count]))


def main(model: Path = embedded.BUNDLE, images: int = 200) -> None:
    """Export the page, measure it and print the results."""
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        command = ["export", str(model), "--to", "page", "--out"]
        cli.main([*command, f"{root}/page"])
        cli.main([*command, f"{root}/page.html", "--single-file"])
        folder, isolated = (served(f"{root}/page", kind) for kind in (Files, IsolatedFiles))
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        file = Path(f"{root}/page.html").as_uri()
        for form, address in (("folder", folder), ("single file", file)):
            seconds = [first_answer(browser, address) for _ in range(OPENINGS)]
            print(
                f"{form}: first answer after {statistics.median(seconds):.2f} s "
                f"({min(seconds):.2f} to {max(seconds):.2f}), "
                f"{rate(browser, address, images):.0f} predictions a second"
            )
        for _ in range(TURNS):
            one, several = (rate(browser, address, images) for address in (folder, isolated))
            print(f"one thread {one:.0f}, several {several:.0f}: {several / one:.2f} times as many")
        browser.close()


if __name__ == "__main__":
    tyro.cli(main)
