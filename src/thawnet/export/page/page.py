"""The model as a page: a folder for any static host, or one HTML file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import lzma
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.model import Model
from ...core.errors import BundleError
from ...core.files import new_folder, write_atomic
from ...image.decode import MAX_PIXELS
from ...webpage import HOUSE, ICON
from ...webpage.facts import EXAMPLES, STATIC, is_embedded, page_facts

OWN = Path(__file__).parent / "static"
RUNTIME = Path(__file__).parent / "runtime"
INDEX = "index.html"
OFFLINE = "offline.js"
ORT = "ort.js"
ORT_GPU = "ort-gpu.js"  # with WebGPU; half a megabyte more than the other, and few need it
STYLES = (HOUSE.name, "page.css", "answers.css")
GPU = "gpu.js"
MODULE = "classifier.js"  # for pages of one's own; it imports MODULE_FACTS
MODULE_FACTS = "facts.js"
SCRIPTS = ("picture.js", "exif.js", "pixels.js", "browser.js", "sources.js", "card.js", "page.js")
# What the browser may allow: 'wasm-unsafe-eval' compiles WebAssembly, but no JavaScript.
_POLICY = (
    "default-src 'none'; script-src {scripts} 'wasm-unsafe-eval'; style-src {styles}; "
    "img-src {images}blob: data:; connect-src {own}; media-src blob:; worker-src {own}; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class Page:
    """The content of a page."""

    facts: Mapping[str, Any]
    """The facts about the network that the page shows, as JSON."""
    assets: Mapping[str, bytes]
    """By name, gzip-compressed except for pictures: `runtime`, ONNX Runtime's WebAssembly;
    `network`, the ONNX model; `weights`, float16 (classes, channels), for networks with class maps;
    and example pictures, by file name."""
    gpu: bool = False
    """Whether a GPU can compute all of the network."""


def make_page(model: Model, network: bytes, name: str, gpu: bool) -> Page:
    """Return the page of a network.

    network: the ONNX model to include. name: for display. gpu: as in Page.
    Raises BundleError for class weights that float16 cannot hold.
    """
    pictures = (
        {path.name: path for path in sorted(EXAMPLES.iterdir())} if is_embedded(model) else {}
    )
    facts = page_facts(model, name, pictures) | {
        "above": model.unfamiliar and model.unfamiliar.above,
        "preprocess": {**asdict(model.preprocess.reduction), "crop": model.preprocess.crop},
        "limits": {"pixels": MAX_PIXELS},
    }
    assets = {"runtime": _runtime(ORT), "network": _packed(network)}
    if model.class_weights is not None:
        with np.errstate(over="ignore"):
            weights = model.class_weights.astype("<f2")
        if not np.isfinite(weights).all():
            raise BundleError("a class has a weight that is too large for float16")
        assets["weights"] = _packed(weights.tobytes())
    assets |= {name: path.read_bytes() for name, path in pictures.items()}
    return Page(facts, assets, gpu)


def write_page(page: Page, out: Path, one_file: bool) -> int:
    """Write a page as one HTML file or as a folder, and return its size in bytes."""
    if one_file:
        content = single_file(page)
        write_atomic(out, lambda file: file.write(content))
        return len(content)
    files = folder_files(page)
    with new_folder(out) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return sum(map(len, files.values()))


def folder_files(page: Page) -> dict[str, bytes]:
    """Return the files of a page's folder by path; index.html is the one to open."""
    assets, scripts = dict(page.assets), list(SCRIPTS)
    if page.gpu:
        assets["runtime-gpu"] = _runtime(ORT_GPU)
        scripts.insert(0, GPU)
    paths = {name: f"static/{name}.gz" for name in assets}
    paths |= {name: f"examples/{name}" for name in page.facts["examples"]}
    files = {paths[name]: content for name, content in assets.items()}
    for name in (*STYLES, *scripts, ORT, MODULE, ICON.name):
        files[f"static/{name}"] = _static(name)
    files[f"static/{MODULE_FACTS}"] = _module_facts(page, paths)
    later = []  # a visitor's browser caches these once it has needed them
    if page.gpu:
        files[f"static/{ORT_GPU}"] = _static(ORT_GPU)
        later = [f"static/{ORT_GPU}", paths["runtime-gpu"]]
    head = [f'<link rel="stylesheet" href="static/{name}">' for name in STYLES]
    head.append(f'<script type="module" src="static/{ORT}"></script>')
    head += [f'<script src="static/{name}" defer></script>' for name in scripts]
    policy = _POLICY.format(scripts="'self'", styles="'self'", images="'self' ", own="'self'")
    files[INDEX] = _html(policy, head, [_facts(page, paths)]).encode()
    # Not index.html, which some hosts redirect to another address: "./" is the folder.
    cached = ["./", *sorted(set(files) - {INDEX, *later})]
    version = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()[:16]
    parts = json.dumps({"version": version, "files": cached, "later": later})
    return files | {OFFLINE: f"self.thawnet = {parts};\n".encode() + _static(OFFLINE)}


def single_file(page: Page) -> bytes:
    """Return a page as one self-contained HTML file.

    It computes on the CPU: GPU support would add 5.5 MB, half as much again, which most visitors
    would not use.
    """
    styles = [_static(name).decode() for name in STYLES]
    module = _static(ORT).decode()
    scripts = [_static(name).decode() for name in SCRIPTS]
    policy = _POLICY.format(
        scripts=" ".join(map(_hash, (module, *scripts))),
        styles=" ".join(map(_hash, styles)),
        images="",
        own="'none'",
    )
    # Large assets come last, so that the page appears while they are still loading.
    body = [_facts(page, {})]
    body += [f"<script>{_inside(script)}</script>" for script in scripts]
    body.append(f'<script type="module">{_inside(module)}</script>')
    body += [
        f'<script type="text/plain" id="asset:{name}">{base64.b64encode(content).decode()}</script>'
        for name, content in page.assets.items()
    ]
    html = _html(policy, [f"<style>{style}</style>" for style in styles], body)
    icon = base64.b64encode(ICON.read_bytes()).decode()
    return html.replace("static/icon.svg", f"data:image/svg+xml;base64,{icon}").encode()


def _html(policy: str, head: Sequence[str], body: Sequence[str]) -> str:
    """Return the served page's HTML with its styles and scripts replaced."""
    html = (STATIC / "page.html").read_text(encoding="utf-8")
    html = re.sub(r'<(link rel="stylesheet"|script )[^>]*>(</script>)?\n', "", html)
    first = '<meta charset="utf-8">\n'
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    html = html.replace(first, first + meta, 1)
    html = html.replace("</head>", "\n".join([*head, "</head>"]), 1)
    return html.replace("</body>", "\n".join([*body, "</body>"]), 1)


def _facts(page: Page, paths: Mapping[str, str]) -> str:
    """Return the element that the page's scripts read, escaped so that no name can close it.

    paths: of the assets stored beside the page.
    """
    content = _as_json(page, paths).replace("<", "\\u003c")
    return f'<script type="application/json" id="facts">{content}</script>'


def _module_facts(page: Page, paths: Mapping[str, str]) -> bytes:
    """Return the script from which the module reads the same, with assets beside itself."""
    return (
        f"const facts = {_as_json(page, paths)};\n"
        "for (const [name, path] of Object.entries(facts.assets)) {\n"
        "  facts.assets[name] = new URL(`../${path}`, import.meta.url).href;\n"
        "}\n"
        "(globalThis.thawnet ??= {}).facts = facts;\n"
    ).encode()


def _as_json(page: Page, paths: Mapping[str, str]) -> str:
    sizes = {name: len(page.assets[name]) for name in paths if name in page.assets}
    return json.dumps({"model": page.facts, "assets": paths, "sizes": sizes})


@cache  # packing takes as long as all the rest of an export
def _runtime(script: str) -> bytes:
    """Return the gzip-compressed WebAssembly of an ONNX Runtime script."""
    packed = (RUNTIME / script).with_suffix(".wasm.xz").read_bytes()
    return _packed(lzma.decompress(packed))


def _static(name: str) -> bytes:
    folders = (OWN, RUNTIME, STATIC, HOUSE.parent)
    return next(folder / name for folder in folders if (folder / name).exists()).read_bytes()


def _inside(script: str) -> str:
    """Return a script after checking that it can be embedded in an HTML file."""
    assert not re.search(r"</script|<!--", script, re.IGNORECASE)
    return script


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)
