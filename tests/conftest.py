"""Small real inputs: photos drawn here, random weights in timm's names, a cache of its own."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from support.bundles import write_colours, write_random_bundle
from support.photos import write_photos
from support.runs import TINY, tiny_options, write_random_weights
from support.service import Service, served
from support.watched_pages import CHROMIUM, SPARING, Watched, launched
from support.web import hosted
from thawnet.core.files import write_atomic
from thawnet.recipe import TrainOptions

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from support.firefox import Firefox
    from thawnet.bundle.model import Model
    from thawnet.training.run_folder import Outcome

# Tests share the cores among themselves, and networks as small as theirs compute no faster on two:
# threads that waited for each other took half of all time. torch reads this as it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tests write and sync twenty thousand small files, which in memory saves a tenth of their time.
# Python has chosen its temporary folder by now; processes that tests start ask TMPDIR.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4e9:
    tempfile.tempdir = os.environ["TMPDIR"] = str(MEMORY)

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than cores, which computes while another waits for a process."""
    return (os.cpu_count() or 1) + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("cuda"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


def pytest_collection_finish() -> None:
    """Spare the garbage collection that training calls for all that the tests have imported."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let what was spared go in the end, as libraries that count what they lent expect."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own cache and working folder, so that none reads another's leftovers."""
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Put back the handlers that a command run inside a test replaced."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    # Python ignores Ctrl-C where it was started in the background, as a shell's `&` does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plot of a run's history out: drawing it takes as long as a small run's training.

    training/test_history_plot.py draws it, the `finished` run, and every command in a process.
    """

    def write(path: Path, *_: object) -> None:
        write_atomic(path, lambda file: file.write(b"no picture"))

    monkeypatch.setattr("thawnet.training.history_plot.plot_history", write)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder of class folders, see support.photos."""

    def write(counts: dict[str, int], root: str = "photos", start: int = 0) -> Path:
        return write_photos(tmp_path / root, counts, start)

    return write


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of TINY, drawn at random."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_random_weights(path, TINY)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundle of TINY at 48 px with random weights, for classes a, b and c."""
    return write_random_bundle(tmp_path_factory.mktemp("bundles") / "bundle", TINY)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that knows COLOURS by an image's mean, and calls bright images unfamiliar."""
    return write_colours(tmp_path_factory.mktemp("bundles") / "colours")


@pytest.fixture
def options(photos: Callable[..., Path], tiny_weights: Path) -> TrainOptions:
    """Return a call that takes about a second: TINY, 72 photos, 32 px, one epoch a phase."""
    return tiny_options(photos({"a": 24, "b": 24, "c": 24}), tiny_weights)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Outcome:
    """Return what came out of a run as `options` asks for it. Many read it: it must stay so."""
    from thawnet.training import run

    folder = tmp_path_factory.mktemp("finished")
    data = write_photos(folder / "photos", {"a": 24, "b": 24, "c": 24})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAWNET_CACHE", str(folder / "cache"))
        return run.train(replace(tiny_options(data, tiny_weights), out=folder / "run"))


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that serves a folder and gives its address, see support.web.hosted."""
    with ExitStack() as running:
        yield lambda *given: running.enter_context(hosted(*given))


@pytest.fixture(scope="session")
def model(colours: Path) -> Model:
    """Return the network that knows COLOURS."""
    from thawnet.bundle.model import load

    return load(colours, threads=1)


@pytest.fixture(scope="session")
def embedded_model() -> Model:
    """Return the network that comes with the package."""
    from thawnet.bundle.model import load

    return load()


@pytest.fixture(scope="session")
def exported_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of that network as a folder, `page`, and as one file, `page.html`."""
    from thawnet import cli, embedded

    path = tmp_path_factory.mktemp("exported")
    command = ["export", str(embedded.BUNDLE), "--to", "page", "--out"]
    assert cli.main([*command, str(path / "page")]) == 0
    assert cli.main([*command, str(path / "page.html"), "--single-file"]) == 0
    return path


@pytest.fixture
def serving(model: Model) -> Iterator[Callable[..., Service]]:
    """Return a function that starts a service, see support.service.served."""
    with ExitStack() as running:
        yield lambda network=model, **changes: running.enter_context(served(network, **changes))


@pytest.fixture(scope="module")
def addresses(exported_page: Path, embedded_model: Model) -> Iterator[dict[str, str]]:
    """Return where the forms of the page are, by name.

    Forms: the exported `folder` on a host, the exported `file`, and the `service`'s own page.
    """
    with hosted(exported_page / "page") as folder, served(embedded_model) as service:
        yield {
            "folder": f"{folder}/",
            "file": (exported_page / "page.html").as_uri(),
            "service": f"http://127.0.0.1:{service.port}/",
        }


@pytest.fixture(scope="module")
def service(model: Model) -> Iterator[Service]:
    """Yield a service as it is by default; the tests of a module share it."""
    with served(model) as service:
        yield service


@pytest.fixture(scope="session")  # while it is open, tests call asyncio in a thread
def chromium() -> Iterator[Browser]:
    """Yield a browser; tests open contexts of their own in it."""
    from playwright.sync_api import expect, sync_playwright

    if CHROMIUM is None:
        pytest.skip("there is no chromium-headless-shell or chromium on PATH")
    expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong
    with sync_playwright() as started:
        browser = launched(started.chromium, *SPARING)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Yield what opens the pages of a module's tests, and hears what goes wrong on them."""
    watched = Watched()
    yield watched
    watched.close()


@pytest.fixture(scope="session")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """Yield the system's Firefox."""
    from support.firefox import Firefox

    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no firefox-esr or firefox on PATH")
    started = Firefox(program, tmp_path_factory.mktemp("firefox"))
    yield started
    started.close()
