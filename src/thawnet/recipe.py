"""Recipes (Recipe and Phase, validated on construction), their files, and the options of `train`.

A field's docstring is its help on the command line and in the API documentation.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .core.errors import RecipeError, suggest
from .core.flags import Section, Switch, option
from .core.text import shown
from .core.typed import typed
from .data.augment import Augment
from .data.reading import AS_IT_IS, Reading
from .data.shares import Shares
from .image.preprocess import Enlargement, Fit

PRESETS = ("quick", "full", "full-gpu", "seed")
MAX_FILE = 100_000  # bytes; the presets have two thousand
MAX_DOTS = 100  # per line
MOST = 10**9  # steps, epochs or images: more than anyone needs, and within libraries' integer types
ON_GPU = {"full": "full-gpu"}  # replacements, on a GPU, of presets made for CPUs


@dataclass(frozen=True)
class Phase:
    """One phase: which layers train, for how long, and how."""

    train_from: str
    """First trained layer: 'head', 'upper', 'middle', 'all', a timm name, a Keras index or name;
    'auto' for 'middle' on small sets of photos and 'upper' on others."""
    epochs: int
    """Passes over the training images; at least 1 for the head, 0 to skip fine-tuning."""
    lr: float
    """Largest learning rate, for batches of `batch_size`."""
    min_steps: int = 0
    """Small data sets get more epochs, to reach this many optimiser steps; 0 for never."""
    max_steps: int = 0
    """Large data sets get fewer epochs, at least 1, within this many steps; 0 for no limit."""
    patience: int = 0
    """Stop after this many epochs without a better validation, keep the best; 0 for never."""
    batch_size: int = 256
    """Images per step, fewer for small data sets; `lr` scales with the batch's square root."""
    optimizer: Literal["adamw", "keras-adam"] = "adamw"
    """'adamw' (Loshchilov and Hutter 2019), or Keras's Adam (Kingma and Ba 2015, epsilon hat)."""
    epsilon: float = 1e-8
    """The optimiser's epsilon; Keras uses 1e-7."""
    weight_decay: float = 0.0
    """Decoupled weight decay; never applied to norms and biases."""
    layer_decay: float = 1.0
    """A stage's learning rate as a share of the next one's, above 0 to 1; 1 for a uniform rate."""
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    """'one-cycle': linear warm-up, then a half cosine to zero (Smith and Topin 2018)."""
    warmup: float = 0.2
    """Share of the steps spent warming up in 'one-cycle', 0 to 1."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes, 0 to 1 (Szegedy et al. 2016)."""
    ema: float = 0.0
    """Decay per step of the weight average that becomes the result; 0 for none."""
    mixup: float = 0.0
    """Mix pairs of images, with shares from Beta(a, a); 0 for never (Zhang et al. 2018)."""
    cutmix: float = 0.0
    """Paste a box from another image, area from Beta(a, a); 0 for never (Yun et al. 2019)."""
    views: int = 0
    """Cached views per image; 0 draws a fresh view every epoch and caches nothing."""
    view_images: int = 0
    """Small data sets get more cached views, at most one per epoch and this many in all."""
    validate_every: int = 0
    """Training images between validations within an epoch; 0 validates after each epoch only."""
    batch_norm: Literal["train", "frozen"] = "train"
    """Thawed batch-norms: 'train' uses and updates batch statistics, 'frozen' keeps them."""
    bn_momentum: float = 0.1
    """Weight of a batch in the running statistics (1 - Keras's momentum)."""
    drop_last: bool = True
    """Skip an epoch's last, smaller batch; Keras keeps it."""
    solve_images: int = 0
    """With up to this many training images, the head is solved to its optimum; 0 for never."""

    def __post_init__(self) -> None:
        _require(0 <= self.epochs <= MOST, "epochs", self.epochs, "at least 0 and at most 10^9")
        _require(0 < self.lr <= 10, "lr", self.lr, "above 0 and at most 10")
        for name in (
            *("min_steps", "max_steps", "patience", "view_images", "validate_every"),
            "solve_images",
        ):
            value = getattr(self, name)
            _require(0 <= value <= MOST, name, value, "at least 0 and at most 10^9")
        for name in ("mixup", "cutmix"):
            _require(0 <= getattr(self, name) <= 10, name, getattr(self, name), "0 to 10")
        _require(1 <= self.batch_size <= 65536, "batch_size", self.batch_size, "1 to 65536")
        _require(0 < self.epsilon < 1, "epsilon", self.epsilon, "between 0 and 1")
        _require(0 <= self.weight_decay <= 1, "weight_decay", self.weight_decay, "0 to 1")
        _require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, at most 1")
        _require(0 <= self.warmup <= 1, "warmup", self.warmup, "0 to 1")
        _require(
            *(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing),
            "at least 0 and below 1",
        )
        _require(0 <= self.ema < 1, "ema", self.ema, "at least 0 and below 1")
        _require(0 <= self.views <= 1000, "views", self.views, "0 to 1000")
        _require(0 < self.bn_momentum <= 1, "bn_momentum", self.bn_momentum, "above 0, at most 1")


@dataclass(frozen=True)
class Recipe:
    """A training job, except its data: `thawnet train DATA --recipe FILE` repeats it."""

    name: str
    """Shown in logs and in the run folder's name."""
    head: Phase
    """Phase 1, feature extraction."""
    finetune: Phase
    """Phase 2, fine-tuning."""
    augment: Augment = dataclasses.field(default_factory=Augment)
    """How far training views may differ from the image."""
    backbone: str = "mobilenetv2_100"
    """A timm model name."""
    weights: str = "imagenet"
    """'imagenet' (timm's), 'keras' (Keras's), 'bundled' (the embedded network); a file or folder;
    hf-hub:OWNER/NAME, or an address."""
    size: int = 0
    """Side of the network's input in pixels, 32 to 1024; 0: chosen from weights and data."""
    fit: Fit = "crop"
    """How an image that is not square becomes one: 'crop' keeps its middle; 'squash' changes its
    proportions; 'pad' adds borders."""
    small_size: int = 128
    """If `size` is 0: the smallest input side for images of 32 px and more, 32 to 1024. Smaller
    images get less in proportion. Never more than the weights' size."""
    enlarge: Enlargement = "bicubic"
    """Interpolation that enlarges small images and transforms training views: 'bicubic' or
    'bilinear'."""
    seed: int = 0
    """Seed of the initial weights, the shuffles and the training views."""
    split_seed: int = 0
    """Seed of the choice of test and validation images, or of the folds; independent of `seed`."""
    test_share: float = 0.0
    """Share of the images held back for testing if the data has no test part. 0: 10 %, more of
    small classes; none if few images are cross-validated."""
    val_share: float = 0.0
    """Share of the training images held back for validation, unless they are cross-validated. 0:
    10 %, at most 2,500 images, more of small classes."""
    folds: int = 5
    """Number of cross-validation folds for few images, 2 to 20."""
    few_images: int = Shares.few
    """Up to this many training images are cross-validated, and all train; 0 for never."""
    mirrored: bool = False
    """Classify by the image and its mirror image: more accurate, at twice the time of a prediction.
    Not where mirroring changes what an image means, and not where few images are
    cross-validated."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of activations. 'auto': bfloat16 where the hardware supports it."""
    balance: bool = False
    """Weight the loss so that every class counts equally, however many images it has."""
    validate_on: Literal["validation", "test"] = "validation"
    """'test' is only for the reference recipe, whose author did so; it selects nothing."""

    def __post_init__(self) -> None:
        _require(not self.size or 32 <= self.size <= 1024, "size", self.size, "32 to 1024, or 0")
        _require(32 <= self.small_size <= 1024, "small_size", self.small_size, "32 to 1024")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        _require(0 <= self.split_seed < 2**32, "split_seed", self.split_seed, "0 to 4294967295")
        for name in ("test_share", "val_share"):
            value = getattr(self, name)
            _require(0 <= value <= 0.5, name, value, "0 to 0.5, as in 0.2 for a fifth")
        _require(2 <= self.folds <= 20, "folds", self.folds, "2 to 20")
        _require(self.head.epochs > 0, "head.epochs", self.head.epochs, "at least 1")
        _require(0 <= self.few_images <= MOST, "few_images", self.few_images, "0 to 10^9")

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in order; the head's alone if fine-tuning has no epochs."""
        return (self.head, self.finetune) if self.finetune.epochs else (self.head,)

    @property
    def shares(self) -> Shares:
        """How images are split into training, validation and test."""
        return Shares.of(to_table(self))


@dataclass(frozen=True)
class TrainOptions:
    """Train a classifier: learn a new head, then fine-tune.

    Progress goes to stderr, the results to stdout, the accuracy last. Options left out
    come from the recipe.
    """

    data: Annotated[str, tyro.conf.Positional, option("[DATA]")] = "cifar100"
    """Your images: a folder that holds a folder per class, or train/ and test/ with a folder per
    class each; a .zip or .tar of such a folder; a .csv of file names and classes; a .parquet file
    or a folder of them. Or a data set by name: cifar100, cifar10, digits, or hf:USER/NAME[:CONFIG]
    on the Hugging Face hub."""
    recipe: Annotated[str | None, option("RECIPE")] = None
    """quick (minutes), full (longer: an hour for 50,000 images), seed (the reference job), or a
    .toml file. Default: quick on a CPU, full-gpu on a GPU, where full means full-gpu."""
    weights: Annotated[str | None, option("WEIGHTS")] = None
    """The pretrained weights: 'imagenet' (timm's, the default), 'keras', 'bundled' (the embedded
    network); a .safetensors, PyTorch or Keras file; a run or bundle, to start from your own
    network; a model on the Hugging Face hub, hf-hub:OWNER/NAME, or a folder of one; a URL."""
    data_dir: Annotated[Path | None, option("FOLDER")] = None
    """For cifar10 and cifar100: the folder that holds the data, in any published form. Default:
    download it."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = AS_IT_IS
    """How DATA is read."""
    backbone: Annotated[str | None, option("NAME"), Section("network")] = None
    """The network, by timm's name; `thawnet backbones` lists some. Default: mobilenetv2_100."""
    size: Annotated[int | None, option("PIXELS")] = None
    """Side of the network's input. Default: chosen from the weights' and the images' sizes."""
    fit: Annotated[Fit | None, option()] = None
    """How an image that is not square becomes one: 'crop' keeps its middle, the default; 'squash'
    changes its proportions; 'pad' adds borders."""
    train_from: Annotated[str | None, option("LAYER"), Section("training")] = None
    """The first layer that fine-tuning trains: 'upper', 'middle' or 'all', a timm name, or a Keras
    name or index."""
    epochs: Annotated[tuple[int, int] | None, option("HEAD FINE-TUNE")] = None
    """Epochs of the two phases; 0 for the second trains the head alone. If it trains, few photos
    are no longer cross-validated; some are held back instead."""
    lr: Annotated[tuple[float, float] | None, option("HEAD FINE-TUNE")] = None
    """Largest learning rates of the two phases."""
    balance: Switch = False
    """Give every class the same weight in the loss, whatever its number of images."""
    seed: Annotated[int | None, option("N")] = None
    """Seed of the initial weights, the shuffles and the training views."""
    test_share: Annotated[float | None, option("SHARE"), Section("testing")] = None
    """Share of the images held back for testing if DATA has no test part, up to 0.5. Default: 10 %,
    a larger share of small classes; up to 1,000 images are cross-validated instead."""
    val_share: Annotated[float | None, option("SHARE")] = None
    """Share of the training images held back for validation, up to 0.5. Default: 10 %, at most
    2,500 images, a larger share of small classes."""
    folds: Annotated[int | None, option("N")] = None
    """Cross-validate in 2 to 20 folds instead of holding images back. Default: 5 folds for up to
    1,000 training images."""
    split_seed: Annotated[int | None, option("N")] = None
    """Seed of the choice of images that are held back, or of the folds."""
    no_test: Switch = False
    """Never open the test part; the accuracy is that on the validation images."""
    no_report: Annotated[Switch, Section("output")] = False
    """Do not write report.html, which takes some seconds."""
    out: Annotated[Path | None, option("FOLDER")] = None
    """The run folder to create. Default: runs/<data>-<recipe>-<number>."""
    tracker: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...],
        tyro.conf.UseAppendAction,
        option(),
    ] = ()
    """Also log the run to a tracker that is installed. Repeat the option for several."""
    resume: Annotated[str | None, option("[RUN]")] = None
    """Continue an interrupted run: its folder, or nothing for the newest one under runs/."""
    allow_different: Switch = False
    """With --resume: continue even if this machine cannot reproduce the run bit for bit."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Section("machine")] = "auto"
    """Where to compute. auto: on an NVIDIA GPU if there is one, else on the CPU. Apple's mps is
    used only if you ask for it."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"] | None, option()] = None
    """Number format of activations. auto, the default: bfloat16 where the hardware supports it."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Use torch.compile. auto: if a compiler is there and the run is long enough to gain by it."""
    workers: Annotated[int | None, option("N")] = None
    """Threads that decode images. Default: one per core."""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(TrainOptions).items():
            try:
                object.__setattr__(self, name, typed(hint, getattr(self, name), name))
            except ValueError as error:
                raise RecipeError(str(error)) from error


def load_recipe(name: str) -> Recipe:
    """Load a preset by name or a recipe from a .toml file.

    Raises RecipeError naming the field, what was received and what is allowed.
    """
    if name in PRESETS:
        text = (resources.files("thawnet.recipes") / f"{name}.toml").read_text(encoding="utf-8")
        return parse_recipe(text, name)
    path = Path(name)
    if path.suffix != ".toml":
        raise RecipeError(
            f"--recipe '{name}': not a preset and not a .toml file; {suggest(name, PRESETS)}"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise RecipeError(f"--recipe '{name}': more than {MAX_FILE:,} bytes; that is no recipe")
        return parse_recipe(content.decode(), name)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"--recipe '{name}': cannot be read ({error})") from error


def parse_recipe(text: str, where: str) -> Recipe:
    """Parse a recipe; `where` names it in errors."""
    # tomllib takes minutes for a.a.a..., whose tables are nested.
    if max(line.count(".") for line in text.split("\n")) > MAX_DOTS:
        raise RecipeError(f"recipe '{where}': a line with over {MAX_DOTS} dots; that is no recipe")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: an integer with too many digits
        raise RecipeError(f"recipe '{where}': not valid TOML ({error})") from error
    try:
        recipe: Recipe = typed(Recipe, table)
    except (RecipeError, ValueError) as error:
        raise RecipeError(f"recipe '{where}': {error}") from error
    return recipe


def resolve(recipe: Recipe, options: TrainOptions) -> Recipe:
    """Return a recipe with the flags applied.

    Epochs given for both phases are run as they are, whatever the size of the data. With `N 0`, the
    head of a small data set is still solved. Raises RecipeError for flags that contradict each
    other or are out of range.
    """
    chosen = {
        name: getattr(options, name)
        for name in (
            *("backbone", "size", "fit", "weights", "seed", "precision"),
            *("split_seed", "test_share", "val_share", "folds"),
        )
        if getattr(options, name) is not None
    }
    for name in ("test_share", "val_share"):
        if getattr(options, name) == 0:
            raise RecipeError(
                f"--{name.replace('_', '-')} 0: give a share above 0, up to 0.5; with --folds 5 no "
                "image is held back"
            )
    if options.balance:
        chosen["balance"] = True
    head_only = options.epochs is not None and options.epochs[1] == 0
    if options.folds is not None:
        for name, why in (
            ("epochs", "few photos are fine-tuned for as many epochs as their number asks"),
            ("val_share", "folds hold no images back"),
        ):
            if getattr(options, name) is not None and not (name == "epochs" and head_only):
                flag = name.replace("_", "-")
                raise RecipeError(f"--folds with --{flag}: {why}; leave one of the two out")
        chosen["few_images"] = MOST
    elif options.val_share is not None:
        chosen["few_images"] = 0
    phases: list[Phase] = []
    for position, phase in enumerate((recipe.head, recipe.finetune)):
        changes: dict[str, Any] = {}
        if options.epochs is not None:
            changes |= {"epochs": options.epochs[position], "min_steps": 0, "max_steps": 0}
            changes |= {"patience": 0} if head_only else {"patience": 0, "solve_images": 0}
        if options.lr is not None:
            changes["lr"] = options.lr[position]
        if position == 1 and options.train_from is not None:
            changes["train_from"] = options.train_from
        phases.append(dataclasses.replace(phase, **changes))
    return dataclasses.replace(recipe, **chosen, head=phases[0], finetune=phases[1])


def chosen_flags(options: TrainOptions) -> list[tuple[str, Any]]:
    """Return the name and value of each flag that differs from its default, without DATA."""
    flags = []
    for table in (options, options.reading):
        for field in dataclasses.fields(table):
            value = getattr(table, field.name)
            if field.name not in ("data", "reading") and value != field.default:
                flags.append((field.name, value))
    return flags


def to_table(value: Any) -> dict[str, Any]:
    """Return a recipe as nested tables; `to_toml` and `parse_recipe` give back an equal one."""
    return dataclasses.asdict(value)


def to_toml(recipe: dict[str, Any]) -> str:
    """Return a recipe's tables as TOML text."""
    import tomli_w

    return tomli_w.dumps(recipe)


def _require(holds: bool, name: str, received: object, allowed: str) -> None:
    if not holds:
        raise RecipeError(f"{name} = {shown(received)}: must be {allowed}")
