"""How soon an exported page answers in Chromium, and how many images a second.

    python benchmarks/browser_page.py [--model RUN] [--images 200]

Both forms of the page, headless: seconds from opening to the first answer on the page, median of
five openings with nothing cached; then predictions a second of photos of 96 px in PNG, decoding and
class maps included, one after another. Last the folder in one thread, and in several, as on a host
that isolates it from other origins, by turns.
"""

from __future__ import annotations

import argparse
import base64
import functools
import http.server
import io
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from thawnet import cli, embedded
from thawnet.webpage.facts import EXAMPLES

OPENINGS = 5
TURNS = 4
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
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
    """Serves files and prints nothing."""

    headers_too: Mapping[str, str] = {}

    def end_headers(self) -> None:
        """Send some headers more."""
        for name, value in self.headers_too.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads it."""


class IsolatedFiles(Files):
    """As a host that lets a page use several threads."""

    headers_too = ISOLATED


def served(folder: str, kind: type[Files]) -> http.server.ThreadingHTTPServer:
    """Return a server of a folder that runs, on a port of its own."""
    handler = functools.partial(kind, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def first_answer(browser: Browser, address: str) -> float:
    """Return seconds from opening a page to its first answer."""
    context = browser.new_context()
    page = context.new_page()
    started = time.perf_counter()
    page.goto(address)
    page.set_input_files("#files", PHOTO)
    page.wait_for_selector(".card[data-state=done]")
    seconds = time.perf_counter() - started
    context.close()
    return seconds


def rate(browser: Browser, address: str, count: int) -> float:
    """Return predictions a second."""
    content = io.BytesIO()
    Image.open(PHOTO).convert("RGB").resize((96, 96)).save(content, "PNG")
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)
    found = page.evaluate(RUN, [base64.b64encode(content.getvalue()).decode(), count])
    context.close()
    return float(found)


def main() -> None:
    """Export, open, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=embedded.BUNDLE)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as root, sync_playwright() as playwright:
        command = ["export", str(options.model), "--to", "page", "--out"]
        cli.main([*command, f"{root}/page"])
        cli.main([*command, f"{root}/page.html", "--single-file"])
        servers = [served(f"{root}/page", kind) for kind in (Files, IsolatedFiles)]
        folder, isolated = (f"http://127.0.0.1:{each.server_port}/" for each in servers)
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for form, address in (
            ("folder", folder),
            ("single file", Path(f"{root}/page.html").as_uri()),
        ):
            seconds = [first_answer(browser, address) for _ in range(OPENINGS)]
            found = rate(browser, address, options.images)
            print(
                f"{form}: first answer after {statistics.median(seconds):.2f} s "
                f"({min(seconds):.2f} to {max(seconds):.2f}), {found:.0f} predictions a second"
            )
        for _ in range(TURNS):
            one, several = (rate(browser, each, options.images) for each in (folder, isolated))
            print(f"one thread {one:.0f}, several {several:.0f}: {several / one:.2f} times as many")
        browser.close()
        for server in servers:
            server.shutdown()


if __name__ == "__main__":
    main()
