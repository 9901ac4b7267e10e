"""The processes of a run, as torchrun starts them, and how they communicate.

A single process runs the same code with one rank. Tensors are summed by DistributedDataParallel and
`World.total`; everything else that ranks exchange is small Python values over gloo.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..core import console
from ..core.errors import RankLostError, ThawnetError, UsageError, chain
from ..core.files import cache_folder, clear_disk_errors
from ..core.memory import available_cores
from ..core.text import command_line

# A dead process closes its connections and is noticed at once. This bounds only how long ranks wait
# for one that works alone, on logistic regression or on decoding.
PATIENCE = timedelta(hours=12)

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """A group of `size` processes, in which this one has number `rank`."""

    rank: int = 0
    size: int = 1
    group: Any = None
    """The group in torch.distributed."""

    @property
    def leads(self) -> bool:
        """Whether this process is the first."""
        return self.rank == 0

    def share(self, value: T) -> T:
        """Return the leader's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.group, group_src=0)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, in order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def own(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this rank's consecutive share of some items; shares differ by one item at most."""
        return np.array_split(items, self.size)[self.rank]


@dataclass(frozen=True)
class World:
    """All processes of a run, and the team of those that share a cache folder."""

    everybody: Ranks = Ranks()
    team: Ranks = Ranks()
    first: bool = True
    """Whether this process is its machine's first."""

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder."""
        return self.everybody.leads

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.everybody.size

    def agree(self, job: Callable[[], T]) -> T:
        """Do a job on every rank. If it fails on any, all stop, and the leader raises the error."""
        value: Any = None
        error: ThawnetError | None = None
        try:
            value = job()
        except ThawnetError as caught:
            error = caught
        failures = [failure for failure in self.everybody.gather(error) if failure is not None]
        if not failures:
            return value  # type: ignore[no-any-return] # what was sent
        if self.leads:
            raise failures[0]
        sys.exit(failures[0].exit_code)

    def lead(self, job: Callable[[], T]) -> T:
        """Let the leader do a job, and return its result on every rank."""
        value = self.agree(lambda: job() if self.leads else None)
        return self.everybody.share(value)  # type: ignore[return-value] # the leader has it

    def in_turn(self, job: Callable[[], T]) -> T:
        """Do a job on each machine's first rank, then on the others, which find what it fetched."""
        if self.size == 1:
            return job()
        mine = self.agree(lambda: job() if self.first else None)
        other = self.agree(lambda: None if self.first else job())
        return mine if self.first else other  # type: ignore[return-value] # one has it

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of every rank's tensor, on its device."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def align(self, module: nn.Module) -> None:
        """Give every rank the leader's tensors, as batch-norm statistics differ between ranks."""
        if self.size > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)

    def wrap(self, part: nn.Module) -> nn.Module:
        """Return the module that trains on every rank's share and averages the gradients.

        Each forward pass starts from the leader's batch-norm statistics.
        """
        return DistributedDataParallel(part) if self.size > 1 else part


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes of a run; their connections close when the block ends without an error."""
    world = join()
    yield world
    if world.size > 1:
        dist.destroy_process_group()


def join() -> World:
    """Return the processes that torchrun started together with this one, or this one alone.

    Raises UsageError if the environment names several but not how to reach them, or if there are
    more processes than GPUs.
    """
    if os.environ.get("WORLD_SIZE", "1") in ("", "1"):
        return ALONE
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local, neighbours = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        _ = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} asks for several processes, but {error} is "
            "missing or wrong; start them with torchrun, or unset WORLD_SIZE"
        ) from error
    backend = "gloo"
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"{neighbours} processes on a machine with {torch.cuda.device_count()} GPUs; "
                "start one for each: --nproc-per-node gpu"
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    # torchrun sets one thread for each process; divide the cores among the processes instead.
    torch.set_num_threads(max(torch.get_num_threads(), available_cores() // neighbours))
    console.follow(rank)
    dist.init_process_group(backend, timeout=PATIENCE)
    everybody = Ranks(rank, size, dist.new_group(backend="gloo", timeout=PATIENCE))
    return World(everybody, _team(everybody), local == 0)


def _team(everybody: Ranks) -> Ranks:
    """Return the ranks that share a cache folder with this one: the leader's, or its machine's."""
    folder = cache_folder()
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    token = folder / everybody.share(f".team-{uuid.uuid4().hex}")
    if everybody.leads:
        with clear_disk_errors(folder):
            token.touch()
    everybody.gather(None)  # the token exists now
    seen = everybody.gather("" if token.exists() else os.environ.get("GROUP_RANK", "unknown"))
    if everybody.leads:
        token.unlink()
    own = Ranks()
    for name in dict.fromkeys(seen):
        members = [rank for rank, other in enumerate(seen) if other == name]
        group = dist.new_group(members, backend="gloo", timeout=PATIENCE)
        if everybody.rank in members:
            own = Ranks(members.index(everybody.rank), len(members), group)
    return own


@contextmanager
def losses_told(world: World, folder: Path | None = None) -> Iterator[None]:
    """Turn torch's errors about a lost rank into RankLostError. folder: of the run, if any."""
    try:
        yield
    except (RuntimeError, KeyboardInterrupt) as error:
        # torchrun then stops the other ranks too, so the loss may be the cause of a stop.
        if world.size == 1 or not any(map(_is_loss, chain(error))):
            raise
        way = f"; start it again with {command_line('--resume', folder)}" if folder else ""
        raise RankLostError(f"another of the {world.size} processes is gone{way}") from error


def _is_loss(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
