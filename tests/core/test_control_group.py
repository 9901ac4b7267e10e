"""Limits of containers: every form of control groups, and the least of all that apply."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from thawnet.core import control_group, memory

Groups = Callable[..., None]
GIB = 2**30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Return a function that sets up control groups: lines of /proc/self/cgroup, and files."""
    monkeypatch.setattr(control_group, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(control_group, "OWN", tmp_path / "own")

    def write(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    return write


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/docker/of/the/host\n", {"cpu.max": "200000 100000"}, 2.0),
        (
            "3:cpu,cpuacct:/job\n1:memory:/other\n0::/\n",
            {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"},
            2.5,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("", {"cpu.max": "50000 100000"}, None),
    ],
)
def test_share_of_the_cores_is_read_in_both_versions(
    groups: Groups, own: str, files: dict[str, str], quota: float | None
) -> None:
    groups(own, files)
    assert control_group.cpu_quota() == quota


@pytest.mark.parametrize(
    ("quota", "cores"), [(0.5, 1), (1.5, 1), (2.0, 2), (64.0, None), (None, None)]
)
def test_cores_are_whole_and_one_at_least(
    groups: Groups, monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    groups("0::/\n", {"cpu.max": "max 1000" if quota is None else f"{quota * 1000:.0f} 1000"})
    assert memory.available_cores() == (cores or 8)


@pytest.mark.parametrize(
    ("own", "files", "limit", "left"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": "5"}, None, None),
        (
            "0::/\n",
            {
                "memory.max": str(2 * GIB),
                "memory.current": str(GIB),
                "memory.stat": f"anon 5\nactive_file {GIB // 4}\ninactive_file {GIB // 4}",
            },
            2 * GIB,
            GIB + GIB // 2,
        ),
        (
            "4:memory:/job/step\n",
            {
                "memory/job/memory.limit_in_bytes": str(GIB),
                "memory/job/memory.usage_in_bytes": str(GIB // 2),
                "memory/job/memory.stat": f"active_file 1\ntotal_active_file {GIB // 4}",
                "memory/job/step/memory.limit_in_bytes": "9223372036854771712",
                "memory/job/step/memory.usage_in_bytes": "7",
            },
            GIB,
            GIB // 2 + GIB // 4,
        ),
    ],
)
def test_memory_is_the_least_of_all_groups_and_files_that_were_read_are_free(
    groups: Groups, own: str, files: dict[str, str], limit: int | None, left: int | None
) -> None:
    groups(own, files)
    assert (control_group.memory_limit(), control_group.memory_left()) == (limit, left)
