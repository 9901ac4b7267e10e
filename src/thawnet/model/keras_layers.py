"""The table that maps Keras's MobileNetV2 layers to timm's, by index and by name.

Keras counts every layer, including those without weights (activations, paddings, additions), as in
keras/src/applications/mobilenet_v2.py: 154 layers without the top.
"""

from __future__ import annotations

from ..core.errors import UsageError, suggest

BACKBONE = "mobilenetv2_100"

# timm's stages: number of blocks, and whether the first one halves the resolution.
_STAGES = ((1, False), (2, True), (3, True), (4, True), (3, False), (3, True), (1, False))


def keras_layers() -> list[tuple[str, str | None]]:
    """Return (Keras name, timm name or None for a layer without weights), in Keras's order."""
    table: list[tuple[str, str | None]] = [
        ("input_layer", None),
        ("Conv1", "conv_stem"),
        ("bn_Conv1", "bn1"),
        ("Conv1_relu", None),
    ]
    number = 0
    for stage, (blocks, halves) in enumerate(_STAGES):
        for block in range(blocks):
            strided = halves and block == 0
            table += _block(number, f"blocks.{stage}.{block}", strided, adds=block > 0)
            number += 1
    return [*table, ("Conv_1", "conv_head"), ("Conv_1_bn", "bn2"), ("out_relu", None)]


def _block(number: int, timm: str, strided: bool, adds: bool) -> list[tuple[str, str | None]]:
    if number == 0:
        keras = "expanded_conv"
        expand: list[tuple[str, str | None]] = []
        names = ("conv_dw", "bn1", "conv_pw", "bn2")
    else:
        keras = f"block_{number}"
        expand = [
            (f"{keras}_expand", f"{timm}.conv_pw"),
            (f"{keras}_expand_BN", f"{timm}.bn1"),
            (f"{keras}_expand_relu", None),
        ]
        names = ("conv_dw", "bn2", "conv_pwl", "bn3")
    return [
        *expand,
        *([(f"{keras}_pad", None)] if strided else []),
        (f"{keras}_depthwise", f"{timm}.{names[0]}"),
        (f"{keras}_depthwise_BN", f"{timm}.{names[1]}"),
        (f"{keras}_depthwise_relu", None),
        (f"{keras}_project", f"{timm}.{names[2]}"),
        (f"{keras}_project_BN", f"{timm}.{names[3]}"),
        *([(f"{keras}_add", None)] if adds else []),
    ]


def to_timm(layer: str) -> str | None:
    """Return the timm name of the first layer with weights at or after a Keras index or name.

    None when `layer` is neither. Raises UsageError for an index out of range.
    """
    table = keras_layers()
    names = [keras for keras, _ in table]
    if layer.isdigit():
        start = int(layer)
        if start >= len(table):
            raise UsageError(f"layer {layer}: Keras's MobileNetV2 has layers 0 to {len(table) - 1}")
    elif layer in names:
        start = names.index(layer)
    else:
        return None
    return next((timm for _, timm in table[start:] if timm is not None), "head")


def suggest_layer(layer: str, timm_names: list[str]) -> str:
    """Return the nearest names, Keras's or timm's, as the user seems to use."""
    keras = [name for name, _ in keras_layers()]
    return suggest(layer, keras if layer.startswith(("block_", "Conv")) else timm_names)
