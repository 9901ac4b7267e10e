"""The network that ships with the package: a bundle, float16, of MobileNetV2 for CIFAR-100."""

from pathlib import Path

BUNDLE = Path(__file__).parent / "cifar100"
BACKBONE = "mobilenetv2_100"
