"""A device like Apple's GPUs, which have no float64; as a program: `thawnet` on this device.

torch's dispatcher hands every operation on the device to Python, where the processor does it. What
an Apple GPU refuses is refused: float64, and tensors of two devices in one operation. It says
nothing of speed, of rounding, or of operators that torch lacks there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "far"
BETWEEN_DEVICES = (torch.ops.aten.copy_.default, torch.ops.aten._copy_from.default)


class FarTensor(torch.Tensor):
    """A tensor on the device; `near` holds its values."""

    @staticmethod
    def __new__(cls, near: torch.Tensor) -> FarTensor:
        if near.dtype == torch.float64:
            raise TypeError("the device doesn't support float64; please use float32 instead")
        return torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), dtype=near.dtype, device=f"{NAME}:0"
        )

    def __init__(self, near: torch.Tensor) -> None:
        self.near = near

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(operation, *args, **(kwargs or {}))

    def tolist(self) -> Any:
        return self.near.tolist()


def _computed(operation: Any, *args: Any, **kwargs: Any) -> Any:
    given = pytree.tree_leaves((args, kwargs))
    far = {id(value.near): value for value in given if isinstance(value, FarTensor)}
    near = [value for value in given if type(value) is torch.Tensor and value.dim()]
    if far and near and operation not in BETWEEN_DEVICES:
        raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
    target = next((value for value in given if isinstance(value, torch.device)), None)

    def sent(value: Any) -> Any:
        if isinstance(value, FarTensor):
            return value.near
        return torch.device("cpu") if value == torch.device(NAME, 0) else value

    def returned(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or any(value is own for own in near):
            return value
        return far[id(value)] if id(value) in far else FarTensor(value)

    args, kwargs = pytree.tree_map(sent, (args, kwargs))
    result = operation(*args, **kwargs)
    return (
        result if target is not None and target.type == "cpu" else pytree.tree_map(returned, result)
    )


class _Module(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def main() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    library = torch.library.Library("_", "IMPL")  # which is in force while it is referred to
    library.fallback(_computed, "PrivateUse1")
    from thawnet.training import machine

    machine.choose_device = lambda _device: NAME  # before anything else has taken it
    from thawnet.cli import entry

    entry()


if __name__ == "__main__":
    main()
