"""Names of backbones: timm's, and what people call them elsewhere."""

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
TELLING = 5  # letters of a part of a name
CLOSE = 0.8  # likeness of a name that was misspelt


def require_model(backbone: str) -> None:
    """Raise UsageError with the nearest names unless this is one of timm's own models.

    It may have the tag of one of its weights, as in mobilenetv2_100.ra_in1k.
    """
    import timm  # it takes a second, for which what builds no network need not wait

    if ":" in backbone:  # a name may come from a bundle: nothing is fetched for it
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
    """Return the model that a file's name tells: resnet50 of resnet50-0676ba61.pth, '' if none."""
    import timm

    names = {bare(name): name for name in timm.list_models()}
    names |= {bare(name): model for name, model in TORCHVISION.items()}
    told = bare(file.partition(".")[0])
    having = [name for name in names if told.startswith(name)]
    return names[max(having, key=len)] if having else ""


def bare(name: str) -> str:
    """Return a name without what people write in different ways: vits14 of ViT-S_14."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def without_tag(backbone: str) -> str:
    """Return a model's name without the tag of its weights: mobilenetv2_100.ra_in1k without it."""
    return backbone.partition(".")[0]


def _nearest(backbone: str) -> str:
    import timm

    models = timm.list_models()
    word = backbone.lower().replace("-", "_")
    meant = named_in(word)
    if meant:
        return f"did you mean '{meant}'?"
    # All of the word, or the longest of its parts that says something: dinov2 of dinov2_vits14.
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
    """Return a key by which the smaller kinds of a model come first."""
    size = next((place for place, size in enumerate(SIZES) if size in name), len(SIZES))
    return size, len(name), name
