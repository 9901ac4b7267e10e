"""Images wait in a queue, are computed together, and are refused where there is no room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from support.awaiting import awaited
from support.service import picture
from thawnet.bundle.model import Model, load
from thawnet.serve.batching import BATCH_BYTES, Batcher
from thawnet.serve.refusals import Busy, Refused


def test_images_of_several_callers_are_computed_at_once(model: Model) -> None:
    batches: list[int] = []

    async def ask() -> Sequence[Any]:
        batcher = Batcher(model, 100, 0.05, lambda images, _seconds: batches.append(images))
        async with batcher.running():
            calls = [batcher.predict([picture(name)], 1, False) for name in ("red", "blue", "red")]
            return await asyncio.gather(*calls)

    answers = awaited(ask())
    assert [answer.classes[0] for (answer,) in answers] == ["red", "blue", "red"]
    assert batches == [3]


def test_large_images_are_computed_in_small_batches(model: Model) -> None:
    batches: list[int] = []
    large = picture("red") + bytes(BATCH_BYTES // 2)

    async def ask() -> Sequence[Any]:
        batcher = Batcher(model, 100, 0.05, lambda images, _seconds: batches.append(images))
        async with batcher.running():
            return await batcher.predict([large] * 3 + [picture("blue")] * 2, 1, False)

    answers = awaited(ask())
    assert [answer.classes[0] for answer in answers] == ["red"] * 3 + ["blue"] * 2
    assert sorted(batches) == [1, 1, 3]  # the last of them with the small ones


def test_full_queue_is_busy_and_takes_again_later(model: Model) -> None:
    async def ask() -> None:
        batcher = Batcher(model, 2, 0.05)
        async with batcher.running():
            first = asyncio.create_task(batcher.predict([picture("red")] * 2, 1, False))
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="2 images are waiting already"):
                await batcher.predict([picture("red")], 1, False)
            await first
            assert await batcher.predict([picture("red")], 1, False)

    awaited(ask())


class Fragile(Model):
    """A network whose process ends at one image, as at a fault in a decoder's native code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Fragile, self._made_of

    def predict_batch(self, images: Any, top_k: int, explain: bool = False) -> Any:
        if b"deadly" in images:
            os._exit(9)
        return super().predict_batch(images, top_k, explain)


@pytest.mark.parametrize("workers", [1, 2])
def test_image_that_ends_its_process_twice_fails_its_own_request_alone(
    colours: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    model = load(colours, threads=workers)
    fragile = Fragile(*model._made_of)

    async def ask() -> list[Any]:
        batcher = Batcher(fragile, 100, 0.05)
        async with batcher.running():
            calls = [batcher.predict([picture(name)] * 3, 1, False) for name in ("red", "blue")]
            deadly = batcher.predict([picture("red"), b"deadly"], 1, False)
            return await asyncio.gather(*calls, deadly, return_exceptions=True)

    red, blue, deadly = awaited(ask())
    assert [answer.classes[0] for answer in red + blue] == ["red"] * 3 + ["blue"] * 3
    assert isinstance(deadly, Refused)
    assert (deadly.status, "ended twice" in deadly.sentence) == (500, True)
    assert len(caplog.messages) <= 2  # a process each, logged when another one is started


def test_caller_who_left_is_not_computed_for(model: Model) -> None:
    batches: list[int] = []

    async def ask() -> None:
        batcher = Batcher(model, 10, 0.05, lambda images, _seconds: batches.append(images))
        async with batcher.running():
            gone = asyncio.create_task(batcher.predict([picture("red")], 1, False))
            stays = asyncio.create_task(batcher.predict([picture("red")], 1, False))
            await asyncio.sleep(0)
            gone.cancel()
            await stays

    awaited(ask())
    assert batches == [1]
