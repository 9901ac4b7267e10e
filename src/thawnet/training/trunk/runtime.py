"""The runtime of frozen layers: on a CPU, a piece of the images to each core."""

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

# Images of 96 px that pass through frozen layers at once, so that activations stay in a core's
# caches. Where the resolution has fallen to a sixteenth it is the weights that must be fetched
# anew for every pass, so more go through together. Measured: docs/experiments.md.
FEW = 2
MANY = 64
TORCH_FEW = 16  # eager torch takes longer to call a layer

SESSIONS = 4  # of ONNX Runtime that are kept
_sessions: dict[str, Any | None] = {}  # by what they compute, the oldest first
_said: list[str] = []  # of networks that ONNX has no form for


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

    cuts: see `ends`. briefly: for so few images that exporting the layers would take longer.
    thaws: the first stage that a later phase trains. From there on coarse ones are computed in the
    precision that it will train in, all others in the trunk's. It computes in the calling thread.
    CPUs run float32 in ONNX Runtime on one core, where the layers can be exported; batch-norms are
    folded into convolutions everywhere.
    """
    last = len(network.stages) if last is None else last
    stops = ends(network, first, last, cuts)
    parts = []
    for start, stop in itertools.pairwise([first, *stops]):
        # Nothing that is kept learns on what will change; fine ones are faster in ONNX Runtime.
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
    """Return where each piece of stages first..last (exclusive) ends that is optimised alone.

    Always where the resolution has fallen to a sixteenth, and at the `cuts`: where activations may
    be wanted, so that their bits, and all behind them, are the same whether they are or not.
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
    """Return the layers in ONNX Runtime, on one core; None if they have no ONNX form.

    The last few are kept: the next part of the data passes through the same layers.
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
    """Say a line, unless one was said so: each part of a network is started on its own."""
    if not _said:
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
    """Return work(rows), on a CPU done in pieces by all cores; work: (n, ...) to (n, ...).

    Cores that each do their own images wait for each other once a piece, not once a layer.
    """
    if machine.device != "cpu":
        return work(rows)
    size = max(1, min(PIECE, -(-len(rows) // machine.workers)))
    pieces = [rows[at : at + size] for at in range(0, len(rows), size)]
    return _together(list(pool(machine).map(work, pieces)))


def pool(machine: Machine) -> ThreadPoolExecutor:
    """Return the threads among which frozen layers share out images, each on a core of its own."""
    return _threads(machine.workers, torch.get_num_threads())


@functools.cache
def _threads(count: int, others: int) -> ThreadPoolExecutor:
    started = threading.Barrier(count + 1)

    def start() -> None:
        # torch gives a thread the number said last, by any, when it is first asked in it. One more
        # OpenMP thread than cores, and the waits of all are slow: steps of a tail by a sixth.
        torch.get_num_threads()
        torch.set_num_threads(1)  # of this thread
        started.wait()

    threads = ThreadPoolExecutor(count, "core", start)
    for _ in range(count):
        threads.submit(int)
    started.wait()
    torch.set_num_threads(others)  # of this one, and of threads yet to come
    return threads
