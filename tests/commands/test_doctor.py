"""doctor: a finding per line, no traceback for anything that is missing, a summary at the end."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from support.commands import called
from support.runs import TINY, tiny_call
from thawnet.commands import doctor
from thawnet.net import hub
from thawnet.net.http import FetchError
from thawnet.recipe import TrainOptions


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FetchError("no network in tests")

    monkeypatch.setattr(hub, "require_answer", refuse)


def test_without_data_the_machine_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, "doctor")
    assert status == 0
    for name in ("python", "packages", "device", "precision", "compiler", "cores", "memory"):
        assert f" {name}" in out
    assert "cannot be reached (no network in tests)\n" in out
    assert "thawnet train digits" in out
    assert out.splitlines()[-1].startswith("ready: ")


def test_a_base_install_is_told_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        gone = name in ("torch", "timm", "huggingface_hub", "pyarrow", "sklearn")
        return None if gone else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    for arguments in ((), ("photos",)):
        status, out, err = called(capsys, "doctor", *arguments)
        assert status == 0
        assert "not installed: torch, timm" in out
        assert "Traceback" not in err
        assert out.splitlines()[-1].startswith("not ready: ")
        assert "pip install 'thawnet[train]'" in out.splitlines()[-1]


def test_minutes_and_memory_stand_in_the_last_line(
    photos: Callable[..., Path], tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 24, "b": 24})
    status, out, err = called(
        capsys, "doctor", *tiny_call(folder, tiny_weights), "--recipe", "quick"
    )
    assert status == 0, err
    call = f"thawnet train {folder} --recipe quick --weights {tiny_weights} --backbone {TINY}"
    assert out.splitlines()[-1].startswith(f"ready: `{call} --size 32 --epochs 1 1` takes about ")
    assert "photos: 2 classes, part train" in out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "10 seconds"), (81, "90 seconds"), (132, "3 minutes"), (5401, "1.6 hours")],
)
def test_a_time_to_allow_for_is_never_less_than_expected(seconds: float, words: str) -> None:
    assert doctor._duration(seconds) == words


def test_json_holds_what_is_printed(
    photos: Callable[..., Path], tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = photos({"a": 24, "b": 24})
    status, out, _ = called(
        capsys,
        "doctor",
        *tiny_call(folder, tiny_weights),
        *["--recipe", "quick", "--no-test", "--json"],
    )
    assert status == 0
    report = json.loads(out)
    assert report["ready"] is True
    (forecast,) = report["forecasts"]
    assert forecast["recipe"] == "quick"
    assert forecast["images"].keys() == {"train", "val"}
    assert forecast["total"] == pytest.approx(sum(forecast["seconds"].values()))
    assert {"name", "found", "todo", "fatal"} == report["checks"][0].keys()


def test_a_recipe_that_can_not_run_does_not_hide_the_others(
    photos: Callable[..., Path],
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "PRESETS", ("seed", "quick", "full", "full-gpu"))
    folder = photos({"a": 24, "b": 24})
    status, out, _ = called(
        capsys, "doctor", *tiny_call(folder, tiny_weights), "--no-test", "--device", "cpu"
    )
    assert status == 0
    assert "seed: recipe 'seed' validates on the test part" in out
    assert "\nquick " in out
    assert "\nfull " in out
    assert "full-gpu" not in out


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("nowhere",), 1, "no data at 'nowhere'"),
        (("digits", "--recipe", "quik"), 2, "did you mean 'quick'?"),
        (("digits", "--backbone", "mobilenetv2"), 2, "timm has no such model"),
        (("digits", "--resume"), 2, "doctor looks at new runs"),
    ],
)
def test_wrong_call_is_one_sentence(
    arguments: tuple[str, ...], status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, out, err = called(capsys, "doctor", *arguments)
    assert (got, out) == (status, "")
    assert told in err.splitlines()[-1]
    assert err.count("\n") == 1


def test_a_forecast_made_beside_other_work_says_so(
    photos: Callable[..., Path],
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = photos({"a": 24, "b": 24})
    for others, busy in ((0.0, False), (1000.0, True)):
        monkeypatch.setattr(doctor.Others, "busy", lambda self, others=others: others)
        _, out, _ = called(capsys, "doctor", *tiny_call(folder, tiny_weights), "--recipe", "quick")
        assert ("-> stop what else computes" in out) == busy
        assert out.splitlines()[-1].endswith(", while other programs compute as now") == busy


def test_load_is_what_others_computed_over_the_time_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = iter([(100.0, 50.0), (110.0, 55.0)])  # time, seconds computed
    monkeypatch.setattr(doctor.Others, "_reading", staticmethod(lambda: next(readings)))
    assert doctor.Others().busy() == pytest.approx(0.5)


def test_too_little_memory_is_said_in_the_last_line(
    photos: Callable[..., Path],
    tiny_weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "available_memory", lambda: 1_000_000)
    folder = photos({"a": 24, "b": 24})
    _, out, _ = called(
        capsys, "doctor", *tiny_call(folder, tiny_weights), "--recipe", "quick", "--json"
    )
    found = json.loads(out)
    assert found["ready"] is False
    assert "of memory and 0.0 GB are available; choose a smaller --size" in found["summary"]


def test_call_is_repeated_as_it_was_made() -> None:
    asked = TrainOptions(data="my photos", recipe="quick", epochs=(1, 2), no_test=True)
    assert doctor.command(asked) == (
        "thawnet train 'my photos' --recipe quick --epochs 1 2 --no-test"
    )


def test_networks_are_compared_by_random_weights(
    photos: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("test_vit", "test_resnet", "no_such_net")
    status, out, err = called(
        capsys,
        "doctor",
        str(photos({"a": 24, "b": 24})),
        "--size",
        "64",
        "--epochs",
        "2",
        "2",
        "--backbones",
        *names,
    )
    assert status == 0, err
    lines = out.splitlines()
    (heading,) = [place for place, line in enumerate(lines) if line.startswith("backbone ")]
    assert [line.split()[0] for line in lines[heading + 1 : heading + 3]] == list(names[:2])
    assert any(line.startswith("no_such_net: --backbone 'no_such_net': timm has") for line in lines)
    assert "--backbone test_" in lines[-1]
    assert "it is the quickest here" in lines[-1]
    whole, head = re.findall(r"(\d+) s  ", lines[heading + 1])
    assert 0 < int(head) <= int(whole)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name the DATA first, as in `thawnet doctor photos --backbones test_vit`"),
        (("photos", "--weights", "bundled"), "--weights: --backbones compares by random weights"),
    ],
)
def test_networks_that_cannot_be_compared_are_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    status, _, err = called(capsys, "doctor", *arguments, "--backbones", "test_vit")
    assert status == 2
    assert told in err


def test_data_behind_the_networks_is_not_taken_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = called(capsys, "doctor", "--backbones", "test_vit", str(tmp_path))
    assert status == 2
    assert f"'{tmp_path}' was taken for a network, name the DATA first" in err
