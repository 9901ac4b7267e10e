"""Names of backbones: timm's own, and those in use elsewhere."""

from __future__ import annotations

import difflib
import re

from ..core.errors import UsageError, suggest

TORCHVISION = {
    "efficientnet_v2_l": "tf_efficientnetv2_l",
    "efficientnet_v2_m": "tf_efficientnetv2_m",
    "efficientnet_v2_s": "tf_efficientnetv2_s",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
}
SIZES = ("nano", "tiny", "small", "base", "large", "giant")  # in timm's names
SHOWN = 3
TELLING = 5  # letters; shorter parts of a name are not searched for
CLOSE = 0.8  # similarity at which a name counts as a misspelling


def require_model(backbone: str) -> None:
    """Raise UsageError with the nearest names unless `backbone` is one of timm's own models.

    The name may include the tag of published weights, as in mobilenetv2_100.ra_in1k.
    """
    import timm  # here, since importing it takes a second

    if ":" in backbone:  # the name may come from a bundle, so nothing is fetched for it
        raise UsageError(
            f"--backbone '{backbone}': timm has no such model; what lies on a hub or server, give "
            f"it by --weights {backbone}"
        )
    if not timm.is_model(backbone):
        raise UsageError(f"--backbone '{backbone}': timm has no such model; {_nearest(backbone)}")
    name, _, tag = backbone.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        has = f"it has {', '.join(tags)}" if tags else "it has none"
        raise UsageError(f"--backbone '{backbone}': timm has no weights '{tag}' of it; {has}")


def named_in(file: str) -> str:
    """Return the model named in a file's name, '' if none: resnet50 for resnet50-0676ba61.pth."""
    import timm

    names = {bare(name): name for name in timm.list_models()}
    names |= {bare(name): model for name, model in TORCHVISION.items()}
    told = bare(file.partition(".")[0])
    having = [name for name in names if told.startswith(name)]
    return names[max(having, key=len)] if having else ""


def bare(name: str) -> str:
    """Return a name in lower case, letters and digits only: vits14 for ViT-S_14."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def without_tag(backbone: str) -> str:
    """Return a model's name without its tag: mobilenetv2_100 for mobilenetv2_100.ra_in1k."""
    return backbone.partition(".")[0]


def _nearest(backbone: str) -> str:
    import timm

    models = timm.list_models()
    word = backbone.lower().replace("-", "_")
    meant = named_in(word)
    if meant:
        return f"did you mean '{meant}'?"
    # The whole word, or the longest of its parts that matches: dinov2 of dinov2_vits14.
    parts = sorted(word.split("_"), key=len, reverse=True)
    for part in (word, *(part for part in parts if len(part) >= TELLING)):
        having = sorted((name for name in models if part in name), key=smallest_first)
        close = difflib.get_close_matches(word, models, n=SHOWN, cutoff=CLOSE)
        if having and len(part) > 2 and (part == word or not close):
            names = list(dict.fromkeys([*having[:SHOWN], *close]))
            return "the nearest are " + ", ".join(f"'{name}'" for name in names)
    if difflib.get_close_matches(word, models, n=1):
        return suggest(word, models)
    return "`thawnet backbones` lists some to begin with"


def smallest_first(name: str) -> tuple[int, int, str]:
    """Return a sort key that puts the smaller variants of a model first."""
    size = next((place for place, size in enumerate(SIZES) if size in name), len(SIZES))
    return size, len(name), name
