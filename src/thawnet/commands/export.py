"""The command `export`: convert a trained network for another program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..core import console
from ..core.errors import UsageError
from ..core.files import write_atomic
from ..core.flags import Switch, option
from ..core.packages import TRAIN_PACKAGES, require_installed

if TYPE_CHECKING:
    from ..bundle.format import Description
    from ..bundle.model import Model

INT8 = "onnx-int8"
LITERT_INT8 = "litert-int8"
PAGE = "page"
SUFFIXES = {
    "onnx": ".onnx",
    "pt2": ".pt2",
    "openvino": ".xml",
    "litert": ".tflite",
    LITERT_INT8: ".tflite",
    "coreml": ".mlpackage",
}
ROUNDED = (INT8, LITERT_INT8)  # forms that may be less accurate


@dataclass(frozen=True)
class ExportOptions:
    """Convert a trained network for another program.

    Every export is compared with the original network before it is written (coreml: on a Mac); a
    line on stdout says how closely they agree.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The run folder of a finished run, or a bundle."""
    to: Literal["onnx", "onnx-int8", "pt2", "openvino", "litert", "litert-int8", "coreml", "page"]
    """onnx: one file for ONNX Runtime. onnx-int8: a smaller, faster bundle for `thawnet predict`,
    in 8-bit integers. pt2: a program for torch.export.load. openvino: .xml and .bin for OpenVINO.
    litert, litert-int8: a .tflite file for Android, LiteRT and MediaPipe. coreml: a .mlpackage for
    Apple's devices. page: a folder for any web host, whose page classifies photos in the visitor's
    browser."""
    out: Annotated[Path | None, option("PATH")] = None
    """File or folder to write; it must not exist yet. Default, in the working folder:
    <backbone>.onnx, .pt2, .xml, .tflite or .mlpackage; <name>-int8 or <name>-page; <name>.html with
    --single-file."""
    single_file: Switch = False
    """For page: write one HTML file, which opens from a disk or an e-mail too."""
    data: Annotated[str | None, option("DATA")] = None
    """For page and the forms in int8: the data that the network was trained on. Default: where the
    run found it. Without it a page's weights stay in float32."""
    data_dir: Annotated[Path | None, option("FOLDER")] = None
    """For cifar10 and cifar100: the folder that holds the data."""
    anyway: Switch = False
    """For the forms in int8: write it even if it is less accurate than float32 on the validation
    images."""


def export(options: ExportOptions) -> None:
    """Export a network and print how closely the export agrees with the original.

    Raises UsageError for wrong options or missing packages, BundleError if the bundle is
    incomplete, cannot be converted, or the export differs too much from the original.
    """
    _check(options)
    from ..bundle.format import DESCRIPTION, ONNX, read_description, read_onnx
    from ..bundle.model import Model

    description = read_description(options.model)
    out = _free(options, description)
    onnx = read_onnx(description)
    model = Model(description, onnx)
    console.say(model.summary)
    if options.to == "onnx":
        _write(out, onnx)
        line = f"{_megabytes(len(onnx))}, SHA-256 {description.sha256[ONNX]} as in the bundle"
    elif options.to == "pt2":
        line = _pt2(description, model, out)
    elif options.to == "openvino":
        line = _openvino(onnx, model, out)
    elif options.to == "litert":
        line = _litert(description, model, out)
    elif options.to == LITERT_INT8:
        line = _litert_int8(options, description, model, out)
    elif options.to == "coreml":
        line = _coreml(description, model, out)
    elif options.to == PAGE:
        line = _page(options, description, onnx, model, out)
    else:
        line = _int8(options, description, onnx, out)
    if options.to in ("onnx", "pt2", "openvino"):  # the other forms contain these
        console.say(f"classes, preprocessing and temperature: {description.path / DESCRIPTION}")
    console.result(f"{out}: {line}")


def _check(options: ExportOptions) -> None:
    out, to = options.out, options.to
    if options.single_file and to != PAGE:
        raise UsageError(f"--single-file: --to {to} writes no page; leave it out")
    if options.anyway and to not in ROUNDED:
        raise UsageError(f"--anyway: only for {' and '.join(ROUNDED)}; leave it out")
    if to == PAGE and out is not None and (out.suffix == ".html") != options.single_file:
        form = "a .html file" if options.single_file else "a folder (--single-file: one .html)"
        raise UsageError(f"--out '{out}': this writes {form}; name it so")
    if to in SUFFIXES and to not in ROUNDED:
        for flag, value in (("--data", options.data), ("--data-dir", options.data_dir)):
            if value is not None:
                raise UsageError(f"{flag} '{value}': --to {to} reads no data; leave it out")
    suffix = SUFFIXES.get(to)
    if suffix and out is not None and out.suffix != suffix:
        raise UsageError(
            f"--out '{out}': --to {to} writes a {suffix} file; name it so, as in model{suffix}"
        )
    if to in ("pt2", "litert", "coreml", *ROUNDED):
        require_installed(f"--to {to}", TRAIN_PACKAGES)
    own = {
        "openvino": ("openvino",),
        "litert": ("litert_torch", "mediapipe"),
        LITERT_INT8: ("litert_torch", "mediapipe"),
        "coreml": ("coremltools",),
    }.get(to, ())
    names = " ".join(name.replace("_", "-") for name in own)
    require_installed(f"--to {to}", own, f"pip install {names}")


def _free(options: ExportOptions, description: Description) -> Path:
    """Return the path to write. Raises UsageError if it exists."""
    name = options.model.resolve().name
    if options.to == INT8:
        default = f"{name}-int8"
    elif options.to == PAGE:
        default = f"{name}.html" if options.single_file else f"{name}-page"
    else:
        default = f"{description.architecture.backbone}{SUFFIXES[options.to]}"
    out = options.out or Path(default)
    for path in (out, out.with_suffix(".bin")) if options.to == "openvino" else (out,):
        if path.exists():
            raise UsageError(f"'{path}' already exists; remove it, or choose another with --out")
    return out


def _pt2(description: Description, model: Model, out: Path) -> str:
    from ..export.pt2 import to_pt2

    content, off = to_pt2(description, model)
    _write(out, content)
    return f"{_megabytes(len(content))}, {_same(off)}"


def _openvino(onnx: bytes, model: Model, out: Path) -> str:
    from ..export.openvino import to_openvino

    network, weights, off = to_openvino(onnx, model)
    beside = out.with_suffix(".bin")
    _write(beside, weights)
    _write(out, network)  # last: this is the file that users open, and it needs the other
    return f"{_megabytes(len(network) + len(weights))} with {beside.name}, {_same(off)}"


def _litert(description: Description, model: Model, out: Path) -> str:
    from ..export.litert import to_litert

    content, off = to_litert(description, model)
    _write(out, content)
    return (
        f"{_megabytes(len(content))}, probabilities as model.onnx gives them (largest difference "
        f"{off:.1e}); classes inside"
    )


def _litert_int8(options: ExportOptions, description: Description, model: Model, out: Path) -> str:
    from ..bundle.format import require_weights
    from ..export.litert import to_litert_int8
    from ..training.reopening import reopen_train_val

    require_weights(description)  # a quantised network is not quantised again
    train, val = reopen_train_val(description, options.data, options.data_dir)
    network = to_litert_int8(description, model, train, val, options.anyway)
    _write(out, network.content)
    exact, rounded = (100 * hits / network.images for hits in network.hits)
    return (
        f"{_megabytes(len(network.content))}; on {network.images:,} validation images accuracy "
        f"{rounded:.2f} % (float32 {exact:.2f} %); classes inside" + _worse(network.worse)
    )


def _coreml(description: Description, model: Model, out: Path) -> str:
    from ..export.coreml import to_coreml

    checked = to_coreml(description, model, out)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return f"{_megabytes(size)}, {checked}"


def _page(
    options: ExportOptions, description: Description, onnx: bytes, model: Model, out: Path
) -> str:
    from ..bundle.format import WEIGHTS
    from ..export.page.network import page_network, validation_squares
    from ..export.page.page import make_page, write_page
    from ..webpage.facts import name_for_people

    quantised = WEIGHTS not in description.sha256
    network, comparison = page_network(
        description,
        onnx,
        model,
        lambda: validation_squares(description, options.data, options.data_dir),
    )
    page = make_page(model, network, name_for_people(model, options.model), gpu=not quantised)
    size = write_page(page, out, options.single_file)
    return (
        f"{_megabytes(size)}, of which the model {_megabytes(len(network))} before it is packed; "
        f"{comparison}"
    )


def _int8(options: ExportOptions, description: Description, onnx: bytes, out: Path) -> str:
    from ..bundle.format import read_trained_on, require_weights
    from ..export.int8 import quantise, write_quantised
    from ..training.reopening import reopen_train_val

    require_weights(description)  # a quantised network is not quantised again
    trained_on = read_trained_on(description)
    train, val = reopen_train_val(description, options.data, options.data_dir)
    network = quantise(description, onnx, train, val, options.anyway)
    write_quantised(out, network, description, trained_on)
    figures = network.figures
    accuracy, speed = figures["validation_accuracy"], figures["images_per_second"]
    return (
        f"{_megabytes(len(network.onnx))} (float32 {_megabytes(len(onnx))}); on {len(val):,} "
        f"validation images accuracy {100 * accuracy['int8']:.2f} % (float32 "
        f"{100 * accuracy['float32']:.2f} %), the same class for "
        f"{100 * figures['same_top_1']:.2f} %, {speed['int8']:,.0f} images/s (float32 "
        f"{speed['float32']:,.0f})" + _worse(network.worse)
    )


def _worse(evidence: str) -> str:
    return (
        f"; less accurate than float32 ({evidence}), written because of --anyway"
        if evidence
        else ""
    )


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda file: file.write(content))


def _same(off: float) -> str:
    return f"logits as model.onnx gives them (largest difference {off:.1e})"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
