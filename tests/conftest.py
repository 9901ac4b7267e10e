"""Small real inputs: photos drawn here, random weights in timm's names, a cache of its own."""

from __future__ import annotations

import functools
import http.server
import io
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

from thawnet.recipe import TrainOptions

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from firefox import Firefox
    from service_client import Service
    from thawnet.bundle.predict import Model
    from thawnet.training.outcome import Outcome

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

SHARED = Path(__file__).resolve().parents[2] / "shared"
CIFAR = SHARED / "data" / "cifar100"
FLOWERS = SHARED / "data" / "flowers"
IMAGENET = SHARED / "weights" / "mobilenetv2_100_imagenet.safetensors"


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own cache and working folder, so that none reads another's leftovers."""
    monkeypatch.setenv("THAWNET_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


def draw(label: int, number: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Draw a photo-like picture whose class shows: stripes of a width and colour per class."""
    rng = np.random.default_rng([label, number])
    width, height = size
    wave = np.sin(np.arange(width) / (1.5 + label) + rng.uniform(0, 3))[None, :, None]
    colour = np.array([1.0, 0.5 - 0.5 * (label % 2), label / 4])
    pixels = 128 + 70 * wave * colour + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image as a file of Pillow's format `kind` holds it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# What makes of an upright image one that EXIF's orientation of that number turns upright.
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """Let a function of a module count its calls."""
    calls: list[int] = []
    plain = getattr(module, name)

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return plain(*arguments)

    monkeypatch.setattr(module, name, count)
    return calls


_REFUSING = """
import sys

lacking = sys.argv.pop(1).split(",")

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in lacking:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
"""


def run_without(
    packages: Sequence[str], code: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """Run Python code, which finds the arguments in sys.argv[1:], as if packages were missing."""
    command = [sys.executable, "-c", _REFUSING + code, ",".join(packages), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder of class folders."""

    def write(counts: dict[str, int], root: str = "photos", start: int = 0) -> Path:
        folder = tmp_path / root
        for label, (name, count) in enumerate(counts.items()):
            (folder / name).mkdir(parents=True)
            for number in range(start, start + count):
                draw(label, number).save(folder / name / f"{number:03d}.png")
        return folder

    return write


TINY = "test_efficientnet"  # timm's own for tests: 100,000 parameters, a MobileNet's parts


def write_random_weights(path: Path, backbone: str) -> Path:
    """Write a network with random weights, in timm's names, and return its path."""
    import torch
    from safetensors.torch import save_file

    from thawnet.model.backbone import Network

    torch.manual_seed(1)
    network = Network(backbone, 3, 32, "same")
    tensors = {
        name: value.contiguous()
        for name, value in network.net.state_dict().items()
        if not name.startswith("classifier.") and not name.endswith("num_batches_tracked")
    }
    metadata = {"pad_type": "same", "bn_eps": "1e-05", "mean": "0.5,0.5,0.5", "std": "0.5,0.5,0.5"}
    save_file(tensors, path, metadata=metadata)
    return path


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a MobileNetV2, drawn at random."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    return write_random_weights(path, "mobilenetv2_100")


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of TINY, drawn at random."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return write_random_weights(path, TINY)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the bundle of a MobileNetV2 of 48 px with random weights, for classes a, b and c."""
    import torch

    from thawnet.bundle.export import to_onnx
    from thawnet.bundle.format import short_hashes, write_bundle
    from thawnet.bundle.meaning import Meaning
    from thawnet.data.items import sha256_rows
    from thawnet.image.preprocess import Preprocess
    from thawnet.model.backbone import Network
    from thawnet.training.exporting import class_weights, outputs

    torch.manual_seed(1)
    network = Network("mobilenetv2_100", 3, 48, "same")
    torch.nn.init.normal_(network.head.weight)  # so that images differ in class
    spec = Preprocess(48, 40, (0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    meaning = Meaning(("a", "b", "c"), spec, 2.0)
    path = tmp_path_factory.mktemp("bundles") / "bundle"
    write_bundle(
        path,
        network.net.state_dict(),
        to_onnx(outputs(network), meaning),
        {
            "backbone": network.backbone,
            "padding": "same",
            "epsilon": None,
            "class_weights": class_weights(network, outputs(network)),
        },
        meaning,
        short_hashes(sha256_rows([b"seen"])),
        {"source": "random", "license": "none"},
        "A card\n",
    )
    return path


COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 200),
    "cyan": (30, 200, 200),
    "magenta": (200, 30, 200),
    "yellow": (200, 200, 30),
}


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle that knows COLOURS by an image's mean, and calls bright images unfamiliar."""
    import torch
    from torch import nn

    from thawnet.bundle.export import to_onnx
    from thawnet.bundle.format import short_hashes, write_bundle
    from thawnet.bundle.meaning import Meaning, Unfamiliar
    from thawnet.data.items import sha256_rows
    from thawnet.image.preprocess import Preprocess

    class Brightness(nn.Module):
        def forward(self, middle: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            return middle.sum(1) + 0 * logits.sum(1)

    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (n, 3), -1 to 1
    head = nn.Linear(3, len(COLOURS), bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(list(COLOURS.values())) / 100 - 1)
    spec = Preprocess(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    meaning = Meaning(tuple(COLOURS), spec, 0.5, Unfamiliar(2.0, 0.05))
    path = tmp_path_factory.mktemp("bundles") / "colours"
    write_bundle(
        path,
        head.state_dict(),
        to_onnx({"middle": mean, "features": nn.Identity(), "logits": head}, meaning, Brightness()),
        {"backbone": "mean", "padding": "", "epsilon": None, "class_weights": None},
        meaning,
        short_hashes(sha256_rows([b"seen"])),
        {"source": "by hand", "license": "none"},
        "A card\n",
    )
    return path


@pytest.fixture
def options(photos: Callable[..., Path], tiny_weights: Path) -> TrainOptions:
    """Return a call that takes about a second: TINY, 72 photos, 32 px, one epoch a phase."""
    folder = photos({"a": 24, "b": 24, "c": 24})
    return TrainOptions(
        data=str(folder),
        recipe="quick",
        backbone=TINY,
        weights=str(tiny_weights),
        size=32,
        epochs=(1, 1),
        precision="float32",
        compile="no",
        no_report=True,
    )


def under(options: TrainOptions, recipe: str) -> TrainOptions:
    """Return a call under another recipe; `seed` names a layer of MobileNetV2, which TINY lacks."""
    return replace(options, recipe=recipe, train_from="upper" if recipe == "seed" else None)


def tensors_of(outcome: Outcome) -> dict[str, Any]:
    """Return the finished network's tensors by name."""
    from safetensors.torch import load_file

    return load_file(outcome.folder / "bundle" / "model.safetensors")


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each; more: headers to send with them."""

    def __init__(self, *arguments: Any, more: Mapping[str, str], **options: Any) -> None:
        self.more = more  # before it answers, which it does while it is made
        super().__init__(*arguments, **options)

    def end_headers(self) -> None:
        """Send some more."""
        for name, value in self.more.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody reads them."""


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that serves a folder over http on this machine and gives its address.

    Its second argument, if any, are headers to send with every file.
    """
    running: list[http.server.ThreadingHTTPServer] = []

    def start(folder: Path, headers: Mapping[str, str] | None = None) -> str:
        handler = functools.partial(QuietFiles, directory=str(folder), more=headers or {})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def model(colours: Path) -> Model:
    """Return the network that knows COLOURS."""
    from thawnet.bundle.predict import load

    return load(colours, threads=1)


@pytest.fixture(scope="session")
def embedded_model() -> Model:
    """Return the network that comes with the package."""
    from thawnet.bundle.predict import load

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
    """Return a function that starts a service with some settings changed, on a free port."""
    pytest.importorskip("fastapi", reason="the packages of thawnet[serve] are not installed")
    from service_client import Service
    from thawnet.serve.app import Settings, make_app
    from thawnet.serve.connection import listen, make_server

    running: list[tuple[Any, threading.Thread]] = []

    def start(network: Model = model, **changes: Any) -> Service:
        listening = listen("127.0.0.1", 0)
        server = make_server(make_app(network, replace(Settings("colours"), **changes)))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Service(listening.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def address_of(
    exported_page: Path,
    serve: Callable[..., str],
    serving: Callable[..., Service],
    embedded_model: Model,
) -> Callable[[str], str]:
    """Return a function that gives the address of a form of the page, which runs from then on.

    Forms: the exported `folder` on a host, the exported `file`, and the `service`'s own page.
    """

    def address(form: str) -> str:
        if form == "folder":
            return f"{serve(exported_page / 'page')}/"
        if form == "file":
            return (exported_page / "page.html").as_uri()
        return f"http://127.0.0.1:{serving(embedded_model).port}/"

    return address


@pytest.fixture
def service(serving: Callable[..., Service]) -> Service:
    """Return a service as it is by default."""
    return serving()


@pytest.fixture(scope="module")  # while it is open, no other test can use asyncio
def chromium() -> Iterator[Browser]:
    """Yield a browser; tests open contexts of their own in it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium on PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """Yield the system's Firefox."""
    from firefox import Firefox

    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("there is no firefox-esr or firefox on PATH")
    started = Firefox(program, tmp_path_factory.mktemp("firefox"))
    yield started
    started.close()
