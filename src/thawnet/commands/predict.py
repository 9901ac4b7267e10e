"""The command `predict`: classify images, all of them or this process's share."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import tyro

from ..core import console
from ..core.errors import DataError, ImageError, UsageError
from ..core.files import new_file
from ..core.flags import Switch, option
from ..core.memory import available_cores
from ..core.text import counted, csv_row, duration, escaped, unreadable

if TYPE_CHECKING:
    from ..bundle.model import Prediction
    from ..bundle.picture import Picture

# Variables that launchers set for each process: its rank, from 0, and the number of processes.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
COLUMNS = ("image", "rank", "class", "probability", "unfamiliar", "error")


@dataclass(frozen=True)
class PredictOptions:
    """Name the most probable classes of images.

    Prints a line per image, in order: files as given, folders and patterns sorted. An image that
    cannot be read is reported in its place; the others are classified all the same, and the exit
    status is 1.
    """

    images: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGES...", help_behavior_hint="(required)"),
    ]
    """Image files; folders, for all images in them; patterns, as 'photos/**/*.jpg'; or - for a list
    of names on stdin (one per line, or separated by NUL as find -print0 writes them)."""
    model: Annotated[Path | None, option("RUN")] = None
    """The folder of a finished run, or a bundle. Default: the embedded network, for the 100 classes
    of CIFAR-100."""
    top_k: Annotated[int, option("N")] = 5
    """Number of classes to name for each image."""
    json: Switch = False
    """Print a JSON object per line: {"image": ..., "predictions": [{"class": ..., "probability":
    ...}], "unfamiliar": true if the image is unlike the training data}, or {"image": ...,
    "error": ...}."""
    csv: Switch = False
    """Print CSV with the columns image,rank,class,probability,unfamiliar,error: a row per class."""
    out: Annotated[Path | None, option("FILE")] = None
    """Write to FILE instead of stdout. It appears when it is complete; until then, and after an
    error, it is FILE.part. With --shard 2/4, out.csv becomes out-2-of-4.csv."""
    features: Annotated[Path | None, option("FILE")] = None
    """Also write the network's features of each image, the input of its last layer: to a .npy file,
    an array with a row for each image, or to a .parquet file."""
    allow_url: Switch = False
    """IMAGES may be addresses (https://...) too: each is downloaded, up to 64 MiB."""
    sort_into: Annotated[Path | None, option("FOLDER")] = None
    """Copy each photo to FOLDER/<class>/, or to FOLDER/unsure/ if the network is not sure. Nothing
    is overwritten. FOLDER/sorted.csv lists what went where, and `thawnet train FOLDER` takes it."""
    unsure: Annotated[float, option("PROBABILITY")] = 0.7
    """With --sort-into: photos below this probability, 0 to 1, go to unsure/, and so do those
    unlike the training data."""
    move: Switch = False
    """With --sort-into: move the photos instead of copying them."""
    link: Switch = False
    """With --sort-into: create symbolic links instead of copies."""
    dry_run: Switch = False
    """With --sort-into: only print what would go where."""
    shard: Annotated[str | None, option("I/N")] = None
    """Classify only the I-th of N shares: every N-th image, beginning with the I-th. Default: the
    share of this process under torchrun or srun, else all images."""
    workers: Annotated[int | None, option("N")] = None
    """Threads that decode and compute. Default: one per core, divided among the processes that
    torchrun started on this machine."""


@dataclass(frozen=True)
class Shard:
    """Share `number`, 1 to `count`, of a list: every count-th entry from the number-th on."""

    number: int
    count: int
    source: str
    """The flag or variables that set it."""

    @property
    def rows(self) -> slice:
        """The share as a slice of the list."""
        return slice(self.number - 1, None, self.count)

    def name(self, path: Path) -> Path:
        """Return the file of this share beside `path`: out.csv becomes out-2-of-4.csv."""
        number = str(self.number).zfill(len(str(self.count)))
        return path.with_name(f"{path.stem}-{number}-of-{self.count}{path.suffix}")


def find_shard(flag: str | None, environment: Mapping[str, str]) -> Shard | None:
    """Return the share set by --shard, or else by a launcher; None for all images.

    Raises UsageError if it is invalid.
    """
    if flag is not None:
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", flag, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"--shard '{flag}': expected I/N, I from 1 to N, as in 2/4 for the second of four"
            )
        return Shard(int(match[1]), int(match[2]), "--shard")
    for rank, size in LAUNCHERS:
        if rank in environment and size in environment:
            count = _whole(size, environment)
            if count > 1:
                return Shard(1 + _whole(rank, environment, count), count, f"{rank}, {size}")
    return None


def predict(options: PredictOptions) -> None:
    """Print a prediction for each image.

    Raises DataError at the end if an image could not be read, UsageError for wrong options,
    BundleError if there is no network to predict with.
    """
    _check(options)
    shard = find_shard(options.shard, os.environ)
    if shard is not None and shard.source != "--shard" and "-" in options.images:
        raise UsageError(
            f"- with {shard.source}: every process must see the same list, and they may share "
            "one stdin; give folders or patterns, or give each its own stdin and --shard I/N"
        )
    from ..bundle.model import load
    from ..data.items import unwatched
    from ..data.names import Names
    from ..data.paths import image_names
    from ..feature_file import feature_file
    from ..image.files import is_pipe, read_pipe
    from ..net.image import fetch_image, is_address
    from ..sorting import How, Sorting

    model = load(options.model, _threads(options, os.environ))
    console.say(model.summary)
    stdin: Any = _stdin() if "-" in options.images else io.BytesIO()
    names = image_names(options.images, iter(partial(stdin.read1, 2**20), b""))
    out, features = options.out, options.features
    if shard is not None:
        everything = len(names)
        names = names[shard.rows]
        console.say(
            f"share {shard.number} of {shard.count} ({shard.source}): "
            f"{len(names):,} of {counted(everything, 'image')}"
        )
        out = out and shard.name(out)
        features = features and shard.name(features)
    address = None if options.allow_url else next(filter(is_address, names), None)
    if address is not None:
        raise UsageError(
            f"'{escaped(address)}' is an address; nothing is fetched without --allow-url"
        )
    if options.sort_into is not None:
        names = Names(dict.fromkeys(names))  # an image named twice is moved once
    # Pipes are read only if named explicitly, and cannot be sorted.
    pipes = set() if options.sort_into else set(filter(is_pipe, options.images))

    def picture(name: str) -> Picture:
        """Return an image's name, or a function that reads it once a thread is ready."""
        if is_address(name):
            return partial(fetch_image, name)
        return partial(read_pipe, Path(name)) if name in pipes else name

    line = _json if options.json else _csv if options.csv else _text
    sorting = None
    if options.sort_into is not None:
        how: How = "move" if options.move else "link" if options.link else "copy"
        line = sorting = Sorting(
            options.sort_into, model.classes, options.unsure, how, options.dry_run
        )
    # On a terminal, the results themselves show the progress.
    watch = unwatched if out is None and sys.stdout.isatty() else console.progress
    started = time.perf_counter()
    broken = 0
    with (
        _output(out) as write,
        sorting.listed() if sorting else nullcontext(),
        feature_file(features, len(names)) if features else nullcontext() as kept,
        watch("predicting", len(names)) as advance,
    ):
        if options.csv:
            write(csv_row(*COLUMNS))
        for name, prediction in zip(
            names,
            model.stream(map(picture, names), options.top_k, features=kept is not None),
            strict=True,
        ):
            broken += isinstance(prediction, ImageError)
            write(line(name, prediction))
            if kept is not None:
                known = None if isinstance(prediction, ImageError) else prediction.features
                kept.add(name, known)
            advance(1)
    spent = time.perf_counter() - started
    speed = f"{len(names) / spent:,.0f} images/s"
    console.say(f"{counted(len(names), 'image')} in {duration(spent)}, {speed}")
    for title, file in (("results", out), ("features", features)):
        if file is not None:
            console.say(f"{title} {file}")
    if sorting is not None:
        console.say(sorting.summary)
    if broken:
        raise DataError(
            f"{broken:,} of {counted(len(names), 'image')} could not be read; "
            "the results say why, each in its place"
        )


def _check(options: PredictOptions) -> None:
    if not options.images:
        raise UsageError(
            "no images: give files, folders, patterns, or - for a list on stdin, "
            "as in thawnet predict photo.jpg"
        )
    if options.json and options.csv:
        raise UsageError("--json and --csv: choose one")
    if options.top_k < 1:
        raise UsageError(f"--top-k {options.top_k}: must be at least 1")
    if options.features is not None:
        from ..feature_file import require_writable

        require_writable(options.features)
    if options.sort_into is not None:
        other = next(
            filter(partial(getattr, options), ("json", "csv", "out", "shard", "features")), ""
        )
        if other or options.allow_url:
            raise UsageError(f"--sort-into and --{other or 'allow-url'}: choose one")
        if options.move and options.link:
            raise UsageError("--move and --link: choose one")
        if not 0 <= options.unsure <= 1:
            raise UsageError(f"--unsure {options.unsure:g}: must be a probability, 0 to 1")
        if options.sort_into.exists() and not options.sort_into.is_dir():
            raise UsageError(f"--sort-into '{options.sort_into}': this is a file; name a folder")
    elif options.move or options.link or options.dry_run:
        raise UsageError("--move, --link and --dry-run: they go with --sort-into FOLDER")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: must be at least 1")


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise UsageError("-: stdin is closed; name the images, or give the list in a pipe")
    return sys.stdin.buffer


def _threads(options: PredictOptions, environment: Mapping[str, str]) -> int:
    if options.workers is not None:
        return options.workers
    processes = _whole("LOCAL_WORLD_SIZE", environment) if "LOCAL_WORLD_SIZE" in environment else 1
    return max(1, available_cores() // max(1, processes))


def _whole(name: str, environment: Mapping[str, str], below: int = 10**9) -> int:
    value = environment[name]
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or int(value) >= below:
        raise UsageError(
            f"{name}='{value}' in the environment: expected a whole number below {below:,}; "
            "unset it or give --shard I/N"
        )
    return int(value)


@contextmanager
def _output(out: Path | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a line."""
    if out is None:
        yield console.result
        return
    if out.is_dir():
        raise UsageError(f"--out '{out}': this is a folder; name a file, as in {out / 'all.csv'}")

    def tell(part: Path) -> None:
        console.say(f"results until here {part}; its last line may be cut")

    with new_file(out, tell) as file:
        yield lambda line: file.write(f"{line}\n".encode())


def _text(name: str, prediction: Prediction | ImageError) -> str:
    if isinstance(prediction, ImageError):
        return unreadable(name, prediction)
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    classes = ", ".join(f"{escaped(label)} {100 * share:.2f} %" for label, share in pairs)
    mark = "  (unlike the training data)" if prediction.unfamiliar else ""
    return f"{escaped(name)}  {classes}{mark}"


def _json(name: str, prediction: Prediction | ImageError) -> str:
    # ASCII, so that names that are not valid UTF-8 can be written too.
    if isinstance(prediction, ImageError):
        return json.dumps({"image": name, "error": str(prediction)})
    return json.dumps({"image": name, **prediction.as_dict()})


def _csv(name: str, prediction: Prediction | ImageError) -> str:
    if isinstance(prediction, ImageError):
        return csv_row(name, "", "", "", "", str(prediction))
    pairs = zip(prediction.classes, prediction.probabilities, strict=True)
    return "\n".join(
        csv_row(name, str(rank), label, f"{share:.6g}", prediction.mark, "")
        for rank, (label, share) in enumerate(pairs, start=1)
    )
