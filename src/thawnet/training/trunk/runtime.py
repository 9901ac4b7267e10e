"""The runtime of frozen layers; on a CPU, each core processes a piece of the images."""

from __future__ import annotations

import functools
import hashlib
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ...bundle.onnx import PROBES, exported
from ...core import console
from ...core.errors import BundleError
from ...model.backbone import Network
from ...model.folding import frozen_copy
from ..machine import Machine

Function = Callable[[torch.Tensor], torch.Tensor]

# Images of 96 px that pass through frozen layers at once. FEW keeps activations in a core's caches.
# Once the resolution has fallen to a sixteenth, fetching the weights for every pass costs more, so
# MANY go through together. Measured: docs/experiments.md.
FEW = 2
MANY = 64
TORCH_FEW = 16  # eager torch has more overhead per layer

SESSIONS = 4  # sessions of ONNX Runtime that are kept
_sessions: dict[str, Any | None] = {}  # by a hash of their layers, the oldest first
_said: list[str] = []  # the message about layers without an ONNX form, once it was printed


def frozen_function(
    network: Network,
    first: int,
    last: int | None,
    machine: Machine,
    cuts: Sequence[int] = (),
    briefly: bool = False,
    thaws: int | None = None,
) -> Function:
    """Return frozen stages first..last (exclusive) as a function of activations on the device.

    cuts: see `ends`. briefly: whether there are so few images that exporting would take longer.
    thaws: the first stage that a later phase trains. From there on, coarse stages are computed in
    the precision of that training, all others in the trunk's. The function runs in the calling
    thread. On a CPU, float32 layers run in ONNX Runtime on one core, if they can be exported.
    Batch-norms are always folded into convolutions.
    """
    last = len(network.stages) if last is None else last
    stops = ends(network, first, last, cuts)
    parts = []
    for start, stop in itertools.pairwise([first, *stops]):
        # Layers that are kept do not learn from stages that will change, so these need no float32.
        # Fine stages still use it, as ONNX Runtime computes them faster.
        passing = thaws is not None and start >= max(thaws, network.coarse)
        dtype = machine.torch_dtype if passing else machine.trunk_dtype
        parts.append(_function(network, start, stop, machine, dtype, briefly))

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            for part in parts:
                x = part(x)
            return x

    return run


def ends(network: Network, first: int, last: int, cuts: Sequence[int] = ()) -> list[int]:
    """Return the ends of the pieces of stages first..last (exclusive) that are optimised alone.

    Pieces end where the resolution has fallen to a sixteenth, and at `cuts`, where activations may
    be read. So these and all later activations have the same bits, whether they are read or not.
    """
    inside = {stage for stage in (network.coarse, *cuts) if first < stage < last}
    return [*sorted(inside), last]


def _function(
    network: Network,
    first: int,
    last: int,
    machine: Machine,
    dtype: torch.dtype,
    briefly: bool,
) -> Function:
    part = network.part(first, last)
    session = None
    if machine.device == "cpu" and dtype == torch.float32 and not briefly:
        session = _session(part, network.shapes[first])
    compute = _in_torch(part, dtype, machine) if session is None else _in_onnx_runtime(session)
    if machine.device != "cpu":
        return compute
    fine = TORCH_FEW if session is None else FEW
    few = max(1, round((MANY if first >= network.coarse else fine) * (96 / network.size) ** 2))
    return lambda x: _together([compute(x[at : at + few]) for at in range(0, len(x), few)])


def _in_torch(part: fx.GraphModule, dtype: torch.dtype, machine: Machine) -> Function:
    copy = frozen_copy(part, dtype, machine.torch_device)
    return lambda x: copy(_prepared(x, dtype))


def _in_onnx_runtime(session: Any) -> Function:
    def compute(x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"x": x.float().contiguous().numpy()})[0])

    return compute


def _session(part: fx.GraphModule, shape: tuple[int, ...]) -> Any | None:
    """Return an ONNX Runtime session for the layers, on one core; None if they have no ONNX form.

    The last few sessions are kept, as the next part of the data passes through the same layers.
    """
    read = hashlib.sha256(f"{part} {shape}".encode())
    for value in part.state_dict().values():
        read.update(value.numpy().tobytes())
    key = read.hexdigest()
    if key not in _sessions:
        _sessions[key] = _started(part, shape)
        while len(_sessions) > SESSIONS:
            del _sessions[next(iter(_sessions))]
    return _sessions[key]


def _started(part: fx.GraphModule, shape: tuple[int, ...]) -> Any | None:
    import onnxruntime

    probe = torch.randn(PROBES, *shape, generator=torch.Generator().manual_seed(0))
    try:
        copy = frozen_copy(part, torch.float32, torch.device("cpu"))
        content = exported(copy, probe, "x", ["y"])
    except BundleError as error:  # as with some of timm's 1,300 models
        _say_once(
            f"{error}: PyTorch computes its frozen layers, which is slower, and `thawnet predict` "
            "will not run it; for that, stop and choose another --backbone"
        )
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _say_once(text: str) -> None:
    """Print a message, only the first time: each part of a network is started on its own."""
    if text not in _said:
        console.say(text)
        _said.append(text)


def _prepared(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    x = x.to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _together(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


# --- a piece to each core ------------------------------------------------------------------------

PIECE = 64  # images that a core takes at a time


Rows = TypeVar("Rows", NDArray[np.int64], torch.Tensor)


def spread(machine: Machine, work: Callable[[Rows], torch.Tensor], rows: Rows) -> torch.Tensor:
    """Return work(rows), on a CPU done in pieces by all cores. work: (n, ...) to (n, ...).

    Cores with images of their own wait for each other once per piece, not once per layer.
    """
    if machine.device != "cpu":
        return work(rows)
    size = max(1, min(PIECE, -(-len(rows) // machine.workers)))
    pieces = [rows[at : at + size] for at in range(0, len(rows), size)]
    return _together(list(pool(machine).map(work, pieces)))


def pool(machine: Machine) -> ThreadPoolExecutor:
    """Return the thread pool that runs frozen layers, with one thread per core."""
    return _threads(machine.workers, torch.get_num_threads())


@functools.cache
def _threads(count: int, others: int) -> ThreadPoolExecutor:
    started = threading.Barrier(count + 1)

    def start() -> None:
        # A thread's first query adopts the number that any thread set last, so it comes before the
        # thread's own setting. With one OpenMP thread more than cores, all waits become slow: steps
        # of a tail by a sixth.
        torch.get_num_threads()
        torch.set_num_threads(1)  # for this thread
        started.wait()

    threads = ThreadPoolExecutor(count, "core", start)
    for _ in range(count):
        threads.submit(int)
    started.wait()
    torch.set_num_threads(others)  # for this thread and new ones
    return threads
