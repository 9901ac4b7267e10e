"""The command `export`: a trained network in the form that another program runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..core import console
from ..core.errors import ThawnetError, UsageError
from ..core.files import new_folder, write_atomic
from ..core.packages import TRAIN_PACKAGES, missing, require_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..bundle.format import Description
    from ..bundle.model import Model

INT8 = "onnx-int8"
PAGE = "page"
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "openvino": ".xml"}


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained network in the form that another program runs.

    The bundle is checked first, and what is written is held against it; a line on stdout says how
    they agree.
    """

    model: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """The run folder of a finished run, or a bundle."""
    to: Literal["onnx", "onnx-int8", "pt2", "openvino", "page"]
    """onnx: the bundle's model, one file. onnx-int8: a new bundle for `thawnet predict`, in 8-bit
    integers, calibrated on training images. pt2: a program for torch.export.load. openvino: .xml
    and .bin. page: a folder for any web host, whose page computes in the visitor's browser."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """What to write; nothing may be there. Default: <backbone>.onnx, .pt2 or .xml, or the folder
    <name of run or bundle>-int8 or -page, here; with --single-file <name>.html."""
    single_file: bool = False
    """page: one HTML file, which opens from a disk or an e-mail too."""
    data: str | None = None
    """onnx-int8, page: what the network was trained on, as for `thawnet train`. Default: where the
    run found it. A page's weights stay in float32 where it is not at hand."""
    data_dir: Path | None = None
    """Where the data lies, as for `thawnet train`."""
    anyway: bool = False
    """onnx-int8: write it even if it is worse than float32 on the validation images."""


def export(options: ExportOptions) -> None:
    """Write a network in another form and print what was written and how it agrees.

    Raises UsageError for a wrong call or missing packages, BundleError when the bundle is not
    whole, cannot be written so, or does not pass the gate.
    """
    _check_call(options)
    from ..bundle.format import DESCRIPTION, ONNX, read_description, read_onnx
    from ..bundle.model import Model

    description = read_description(options.model)
    out = _free(options, description)
    onnx = read_onnx(description)
    model = Model(description, onnx)
    console.say(model.summary)
    if options.to == "onnx":
        _write(out, onnx)
        told = f"{_megabytes(onnx)}, SHA-256 {description.sha256[ONNX]} as in the bundle"
    elif options.to == "pt2":
        told = _pt2(description, model, out)
    elif options.to == "openvino":
        told = _openvino(onnx, model, out)
    elif options.to == PAGE:
        told = _page(options, description, onnx, model, out)
    else:
        told = _int8(options, description, onnx, out)
    if options.to not in (INT8, PAGE):  # which hold these themselves
        console.say(f"classes, preprocessing and temperature: {description.path / DESCRIPTION}")
    console.result(f"{out}: {told}")


def _check_call(options: ExportOptions) -> None:
    if options.single_file and options.to != PAGE:
        raise UsageError(f"--single-file: --to {options.to} writes no page; leave it out")
    if options.to == INT8:
        require_installed("--to onnx-int8", TRAIN_PACKAGES)
        return
    if options.anyway:
        raise UsageError(f"--anyway: --to {options.to} refuses no network; leave it out")
    if options.to == PAGE:
        _check_page(options)
        return
    for flag, given in (("--data", options.data), ("--data-dir", options.data_dir)):
        if given is not None:
            raise UsageError(f"{flag} '{given}': --to {options.to} reads no data; leave it out")
    suffix = SUFFIXES[options.to]
    if options.out is not None and options.out.suffix != suffix:
        raise UsageError(
            f"--out '{options.out}': --to {options.to} writes a {suffix} file; "
            f"name it so, as in model{suffix}"
        )
    if options.to == "pt2":
        require_installed("--to pt2", TRAIN_PACKAGES)
    elif options.to == "openvino":
        require_installed("--to openvino", ("openvino",), "pip install openvino")


def _check_page(options: ExportOptions) -> None:
    if options.out is not None and (options.out.suffix == ".html") != options.single_file:
        wanted = "a .html file" if options.single_file else "a folder (--single-file: one .html)"
        raise UsageError(f"--out '{options.out}': this writes {wanted}; name it so")


def _free(options: ExportOptions, description: Description) -> Path:
    """Return what to write. Raises UsageError when something is there."""
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
            raise UsageError(f"'{path}' is there already; remove it, or choose another with --out")
    return out


def _pt2(description: Description, model: Model, out: Path) -> str:
    from ..export.pt2 import to_pt2

    content, off = to_pt2(description, model)
    _write(out, content)
    return f"{_megabytes(content)}, {_same(off)}"


def _openvino(onnx: bytes, model: Model, out: Path) -> str:
    from ..export.openvino import to_openvino

    network, weights, off = to_openvino(onnx, model)
    beside = out.with_suffix(".bin")
    _write(beside, weights)
    _write(out, network)  # last: it is what is opened, and it needs the other
    return f"{_megabytes(network + weights)} with {beside.name}, {_same(off)}"


def _page(
    options: ExportOptions, description: Description, onnx: bytes, model: Model, out: Path
) -> str:
    from ..bundle.format import WEIGHTS
    from ..export.page.network import page_network
    from ..export.page.page import folder_files, make_page, single_file
    from ..webpage.facts import name_for_people

    quantised = WEIGHTS not in description.sha256
    if not quantised:
        require_installed("--to page", ("onnx",))
    network = page_network(description, onnx, model, lambda: _validation(options, description))
    name = name_for_people(model, options.model)
    page = make_page(model, network.onnx, name, gpu=not quantised)
    if options.single_file:
        content = single_file(page)
        _write(out, content)
        size = _megabytes(content)
    else:
        files = folder_files(page)
        with new_folder(out) as folder:
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
        size = _megabytes(b"".join(files.values()))
    return (
        f"{size}, of which the model {_megabytes(network.onnx)} before it is packed; {network.told}"
    )


def _validation(options: ExportOptions, description: Description) -> NDArray[np.uint8] | None:
    """Return images that validated a network, (n, crop, crop, 3), None where none are at hand."""
    asked = options.data is not None or options.data_dir is not None
    lacking = missing(TRAIN_PACKAGES)
    if lacking and not asked:
        console.say(f"the page's weights stay in float32: {lacking[0]} is not installed")
        return None
    require_installed("--data", TRAIN_PACKAGES)
    import numpy as np

    from ..data.items import spread_over
    from ..training.gate import GATE_IMAGES, squares_of
    from ..training.trained_on import reopen_train_val

    try:
        _, val = reopen_train_val(description, options.data, options.data_dir)
    except ThawnetError as error:
        if asked:
            raise
        console.say(f"the page's weights stay in float32, untried in float16: {error}")
        return None
    rows = np.asarray(spread_over(len(val), GATE_IMAGES))
    return squares_of(val, rows, description.meaning.preprocess.crop)


def _int8(options: ExportOptions, description: Description, onnx: bytes, out: Path) -> str:
    from ..bundle.card import int8_card
    from ..bundle.format import read_trained_on, require_weights, write_bundle
    from ..export.int8 import quantise
    from ..training.trained_on import reopen_train_val

    require_weights(description)  # what is quantised already is not quantised again
    trained_on = read_trained_on(description)
    train, val = reopen_train_val(description, options.data, options.data_dir)
    found = quantise(description, onnx, train, val, options.anyway)
    facts, figures = dict(description.facts), found.as_dict()
    # These figures are float32's.
    origin = {name: facts.pop(name, None) for name in ("metrics", "export")}
    facts["export"] = figures
    facts["quantised_from"] = {"sha256": description.sha256, **origin}
    data, licence = str(facts["data"]["name"]), str(facts.get("license", "not stated"))
    write_bundle(
        out,
        None,
        found.onnx,
        replace(description.architecture, class_weights=None),  # they are float32
        description.meaning,
        trained_on,
        facts,
        int8_card(description.meaning, description.architecture.backbone, data, licence, figures),
    )
    (exact, accuracy), (before, speed) = found.accuracies, found.speeds
    return (
        f"{_megabytes(found.onnx)} (float32 {_megabytes(onnx)}); on {len(val):,} validation images "
        f"accuracy {100 * accuracy:.2f} % (float32 {100 * exact:.2f} %), the same class for "
        f"{100 * found.agreement.same_top_1:.2f} %, {speed:,.0f} images/s (float32 {before:,.0f})"
        + (f"; worse than float32, written all the same ({found.worse})" if found.worse else "")
    )


def _write(path: Path, content: bytes) -> None:
    write_atomic(path, lambda file: file.write(content))


def _same(off: float) -> str:
    return f"logits as model.onnx gives them (largest difference {off:.1e})"


def _megabytes(content: bytes) -> str:
    return f"{len(content) / 1e6:.1f} MB"
