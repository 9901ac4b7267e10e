"""What a test puts in the place of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from thawnet.training.checkpoint import RunState


def calls_of(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[tuple[Any, ...]]:
    """Return a list that holds the arguments of each call of a module's function from now on."""
    calls: list[tuple[Any, ...]] = []
    plain = getattr(module, name)

    def noted(*arguments: Any) -> Any:
        calls.append(arguments)
        return plain(*arguments)

    monkeypatch.setattr(module, name, noted)
    return calls


def after_each_save(monkeypatch: pytest.MonkeyPatch, do: Callable[[RunState], None]) -> None:
    """Call `do` each time that a run's state was saved; what it raises stops the run there."""
    from thawnet.training import checkpoint

    plain = checkpoint.save

    def save(state: RunState, folder: Any) -> None:
        plain(state, folder)
        do(state)

    monkeypatch.setattr(checkpoint, "save", save)


def stop_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> list[tuple[int, int, int]]:
    """Stop a run right after its state was saved for the n-th time.

    Return a list that holds the phase, epoch and step of each save.
    """
    saved: list[tuple[int, int, int]] = []

    def stop(state: RunState) -> None:
        saved.append((state.phase, state.epoch, state.step))
        if len(saved) == saves:
            raise KeyboardInterrupt

    after_each_save(monkeypatch, stop)
    return saved
