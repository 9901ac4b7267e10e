"""What lies in ../shared, beside a checkout: a test that needs it skips where it is missing."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared"
CIFAR = SHARED / "data" / "cifar100"
FLOWERS = SHARED / "data" / "flowers"
IMAGENET = SHARED / "weights" / "mobilenetv2_100_imagenet.safetensors"
LITE = SHARED / "weights" / "tf_efficientnet_lite0_imagenet.safetensors"
