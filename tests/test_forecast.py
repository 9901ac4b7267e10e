"""A forecast is the counted work times the measured speeds; measuring leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.runs import under
from support.shares import HELD_BACK
from thawnet.core.errors import WeightsError
from thawnet.core.files import cache_entries, cache_folder
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange
from thawnet.data.store import Typical
from thawnet.forecast import Features, Forecast, estimate, features_read, forecast
from thawnet.model.backbone import Network
from thawnet.model.thawing import first_layer
from thawnet.recipe import PRESETS, Phase, Recipe, TrainOptions
from thawnet.training.machine import COMPILE_SECONDS, COMPILE_SPEEDUP, Machine
from thawnet.training.plan import PhasePlan, Plan, make_plan
from thawnet.training.run import train

HEAD = Phase(train_from="head", epochs=4, lr=0.1, batch_size=100, views=2)
TAIL = Phase(train_from="blocks.4.1", epochs=3, lr=0.1, batch_size=100, views=3)
IMAGES = {"train": 1000, "val": 100, "test": 200}


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("mobilenetv2_100", 10, 96)


def planned(network: Network, head: Phase = HEAD, tail: Phase = TAIL, compiled: str = "no") -> Plan:
    machine = Machine("cpu", "float32", 1, compiled)
    return make_plan(Recipe("own", head, tail), network, machine, IMAGES["train"])


class FakeProbe:
    """Speeds that are easy to multiply by head, and which phases computed their input anew."""

    def __init__(self) -> None:
        self.live: list[bool] = []

    def pass_seconds(self, split: int) -> float:
        return split / 1000

    def phase(self, plan: PhasePlan, live: bool) -> tuple[float, float]:
        self.live.append(live)
        return (0.5, 0.03) if plan.name == "head" else (2.0, 0.04)

    def test(self) -> float:
        return 0.05

    def solve(self, rows: int, views: int, folds: int) -> float:
        return views * rows / 100


def seconds_of(
    plan: Plan,
    images: dict[str, int] = IMAGES,
    features: set[Features] | frozenset[Features] = frozenset(),
) -> dict[str, float]:
    return estimate(plan, images, features, True, 0, FakeProbe())  # type: ignore[arg-type]


def test_every_view_that_a_phase_or_the_baseline_reads_is_cached_once(network: Network) -> None:
    tail, head = (network.stage_of(first_layer(network, name)) for name in ("blocks.4.1", "head"))
    features = features_read(planned(network), IMAGES, head)
    assert features == {
        *(("train", view, head) for view in range(2)),
        *(("train", view, tail) for view in range(3)),
        *(("val", 0, head), ("val", 0, tail), ("test", 0, head)),
    }
    # One pass gives a view at both splits; the third view ends at the tail's.
    passes = 2 * 1000 * head + 1000 * tail + 100 * head + 200 * head
    seconds = seconds_of(planned(network), features=features)
    assert seconds["features"] == pytest.approx(passes / 1000)


def test_fresh_views_and_thawed_trunks_are_never_cached(network: Network) -> None:
    plan = planned(network, replace(HEAD, views=0), replace(TAIL, train_from="all"))
    pooled = len(network.stages) - 1
    assert features_read(plan, IMAGES, pooled) == {(part, 0, pooled) for part in IMAGES}


@pytest.mark.parametrize(
    ("head", "tail", "fits", "live"),
    [
        (HEAD, TAIL, True, [False, False]),
        (HEAD, TAIL, False, [True, True]),
        (replace(HEAD, views=0), replace(TAIL, train_from="all"), True, [True, True]),
    ],
)
def test_what_is_not_cached_is_computed_every_epoch(
    network: Network, head: Phase, tail: Phase, fits: bool, live: list[bool]
) -> None:
    probe = FakeProbe()
    estimate(planned(network, head, tail), IMAGES, set(), fits, 0, probe)  # type: ignore[arg-type]
    assert probe.live == live


def test_test_part_counts_only_if_it_is_read(network: Network) -> None:
    plan = planned(network)
    assert seconds_of(plan)["test"] == pytest.approx(300 * 0.05)
    assert seconds_of(plan, {"train": 1000, "val": 100})["test"] == pytest.approx(100 * 0.05)
    seed = seconds_of(plan, {"train": 1000, "test": 200})  # which validates
    assert seed["test"] == pytest.approx(200 * 0.05)


def test_seconds_are_work_times_speed(network: Network) -> None:
    # min_steps make 8 epochs of its 10 steps
    seconds = seconds_of(planned(network, replace(HEAD, min_steps=80)))
    assert seconds["head"] == pytest.approx(8 * (10 * 0.5 + 100 * 0.03))
    assert seconds["fine-tune"] == pytest.approx(3 * (10 * 2.0 + 100 * 0.04))
    assert seconds["baseline"] == pytest.approx(10)


def test_compiling_costs_once_and_gains_on_every_step(network: Network) -> None:
    eager, compiled = (
        seconds_of(planned(network, compiled=how))["fine-tune"] for how in ("no", "yes")
    )
    assert eager - compiled == pytest.approx(3 * 10 * (2 - 2 / COMPILE_SPEEDUP) - COMPILE_SECONDS)


def forecast_for(options: TrainOptions) -> Forecast:
    source = open_source(options.data)
    return forecast(options, source, arrange(source, HELD_BACK), Typical(40, 40), opened=1.0)


# The others are measured by the same code, a second each.
OFTEN = ("quick", "full-gpu", "seed")


@pytest.mark.parametrize(
    "name",
    [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS],
)
def test_every_preset_is_measured_and_nothing_is_left_behind(
    options: TrainOptions, name: str
) -> None:
    found = forecast_for(under(options, name))
    assert found.recipe == name
    assert all(value >= 0 for value in found.seconds.values())
    assert found.seconds["start"] > 1
    assert found.memory > 50e6
    assert cache_entries() == []
    assert list(cache_folder().iterdir()) == []


def test_a_run_writes_the_predicted_bytes_and_the_next_one_none(
    options: TrainOptions,
) -> None:
    options = replace(options, recipe="quick")
    found = forecast_for(options)
    assert found.images == {"train": 50, "val": 10, "test": 12}
    train(options)
    pixels = {"pixels.bin", "values.bin"}
    written = sum(
        file.stat().st_size
        for entry, _ in cache_entries()
        for file in entry.iterdir()
        if file.name in pixels
    )
    assert found.written == written
    again = forecast_for(options)
    assert again.written == 0
    assert (again.seconds["data"], again.seconds["features"]) == (0, 0)


def test_features_beyond_the_disk_budget_are_not_written(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(options, recipe="quick")
    whole = forecast_for(options)
    monkeypatch.setenv("THAWNET_CACHE_GB", "0.00001")
    limited = forecast_for(options)
    assert (whole.cached, limited.cached) == (True, False)
    assert 0 < limited.written < whole.written


def test_missing_weights_are_the_runs_own_error(options: TrainOptions) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        forecast_for(replace(options, recipe="quick", weights="nowhere.safetensors"))
