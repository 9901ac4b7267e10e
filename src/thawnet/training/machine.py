"""Run-time decisions: device, precision, threads, compilation; a resumed run keeps them."""

from __future__ import annotations

import functools
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..core.errors import UsageError, first_line
from ..core.memory import available_cores

PACKAGES = ("thawnet", "torch", "timm", "numpy", "pillow")

# Compiling the tail takes about 45 s on 2 cores and makes a step 1.2 x faster there, so it pays
# from about this many images of 96 px on (epochs times training images).
COMPILE_SECONDS = 45.0
COMPILE_SPEEDUP = 1.2
COMPILE_PAYS_FROM = 600_000 * 96 * 96


@dataclass(frozen=True)
class Machine:
    """Run-time decisions, as a checkpoint stores them."""

    device: str
    dtype: str
    """Precision of activations: 'bfloat16' or 'float32'."""
    threads: int
    compile: str
    """'auto', 'yes' or 'no'."""
    chip: str = ""
    """Processor with its vector instructions, or GPU; another one rounds differently."""

    @property
    def torch_device(self) -> torch.device:
        """The device as torch's own type."""
        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """Precision of activations; parameters and their gradients stay float32."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    @property
    def trunk_dtype(self) -> torch.dtype:
        """Precision of frozen layers.

        On a CPU it is float32. In chunks that fit the caches this is nearly as fast as bfloat16
        (1,306 against 1,513 images/s), and the tail trains on the features that it will get in
        prediction: a tail trained on a trunk rounded to bfloat16 lost 0.9 points of test accuracy
        in float32 (recipe seed).
        """
        return torch.float32 if self.device == "cpu" else self.torch_dtype

    @property
    def sum_dtype(self) -> type[np.floating[Any]]:
        """Precision in which an epoch's losses and hits are added up; Apple's GPUs lack float64."""
        return np.float64 if self.device in ("cpu", "cuda") else np.float32

    @property
    def workers(self) -> int:
        """Threads that share the images of frozen layers: one per core, or one for a GPU."""
        return self.threads if self.device == "cpu" else 1

    @property
    def runtime(self) -> str:
        """The runtime of frozen layers; see trunk.runtime.frozen_function."""
        return f"onnxruntime {version('onnxruntime')}" if self.device == "cpu" else "torch"

    @property
    def mends(self) -> bool:
        """Whether depthwise convolutions are replaced while they train, see model/depthwise.py."""
        return self.device == "cpu" and self.dtype == "bfloat16"

    def compiles(self, images: int, size: int) -> bool:
        """Return whether to compile a phase that trains on `images` in all, of `size` px."""
        enough = images * size * size >= COMPILE_PAYS_FROM
        return self.compile == "yes" or (self.compile == "auto" and enough)

    def autocast(self) -> torch.autocast:
        """Return the autocast context in which networks run."""
        reduced = self.torch_dtype != torch.float32
        return torch.autocast(self.torch_device.type, self.torch_dtype, enabled=reduced)


def choose_device(device: str) -> str:
    """Return the device to use. Raises UsageError for one that this machine lacks."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: torch sees no Metal device here; use --device cpu")
    return device


def decide(device: str, precision: str, compiling: str) -> Machine:
    """Return the run-time decisions, choosing what recipe and flags leave open."""
    if precision == "auto":
        precision = "bfloat16" if _fast_bfloat16(device) else "float32"
    if compiling == "auto" and not _can_compile(device):
        compiling = "no"
    # Threads beyond a container's share of the cores would only wait for each other.
    threads = min(torch.get_num_threads(), available_cores())
    torch.set_num_threads(threads)
    return Machine(device, precision, threads, compiling, chip(device))


def chip(device: str) -> str:
    """Return the GPU's name, or the processor's with its vector instructions."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def obstacles(machine: Machine, compiled: Sequence[bool]) -> list[str]:
    """Return which decisions of a run this machine cannot keep. compiled: of each phase."""
    try:
        choose_device(machine.device)
    except UsageError:
        return [f"it ran on {machine.device}, which is not here"]
    lacking = []
    if machine.dtype == "bfloat16" and not _fast_bfloat16(machine.device):
        lacking.append("it computed in bfloat16, which this processor lacks")
    if any(compiled) and (fault := compile_fault(machine.device)):
        lacking.append(f"it was compiled, and torch.compile does not work here ({fault})")
    if machine.chip != chip(machine.device):
        lacking.append(f"it ran on {machine.chip}; this is {chip(machine.device)}")
    return lacking


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that affect a run's numbers."""
    return {name: version(name) for name in PACKAGES}


@functools.cache
def version(package: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _fast_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Only the processor's own instructions are fast: oneDNN also emulates bfloat16, slowly.
    return device == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def compile_fault(device: str) -> str | None:
    """Return why torch.compile fails on a small function here, or None if it works.

    A compiler alone is not enough: a CPU also needs Python.h, and a GPU needs Triton.
    """
    return _trial_fault(device) if _can_compile(device) else "no C++ compiler was found"


@functools.cache
def _trial_fault(device: str) -> str | None:
    try:
        tried = torch.compile(lambda values: (2 * values).relu().sum(), dynamic=False)
        tried(torch.ones(64, device=device))
    except Exception as error:  # Dynamo, Inductor, Triton and compilers raise many kinds of errors
        text = str(error)
        if "Python.h" in text:
            return "Python.h is missing; Debian's package python3-dev has it"
        if "triton" in text.lower() and device == "cuda":
            return "it needs Triton, which is missing or does not work"
        return first_line(error)
    return None


def _can_compile(device: str) -> bool:
    if device == "cuda":
        return True
    compilers = (os.environ.get("CXX"), "g++", "clang++", "c++")
    return device == "cpu" and any(name and shutil.which(name) for name in compilers)


def describe() -> dict[str, Any]:
    """Return what result.json records about this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


@functools.cache
def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
