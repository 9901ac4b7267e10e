"""A call has its result, its error, or its end."""

from __future__ import annotations

import threading
import time

import pytest

from thawnet.net.limits import within


def test_result_and_error_come_through() -> None:
    assert within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    assert within(5, lambda: None) is None


def test_what_takes_too_long_is_given_up_and_holds_nobody() -> None:
    done = threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        within(0.05, lambda: done.wait(20))
    assert time.monotonic() - started < 5
    done.set()
