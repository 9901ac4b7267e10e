"""A forecast is the counted work times the measured speeds; measuring leaves nothing behind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from support.runs import under
from thawnet.core.errors import WeightsError
from thawnet.core.files import cache_entries, cache_folder
from thawnet.data.sources.open import open_source
from thawnet.data.splits import arrange
from thawnet.forecast.forecast import Forecast, PassSpeed, PhaseSpeed, Speeds, forecast, seconds_of
from thawnet.forecast.workload import Caches, Pass, PhaseWork, Work, count
from thawnet.model.backbone import Network
from thawnet.recipe import PRESETS, Phase, Recipe, TrainOptions, load_recipe
from thawnet.training.machine import COMPILE_SECONDS, COMPILE_SPEEDUP, Machine
from thawnet.training.plan import PhasePlan, make_plan
from thawnet.training.run import train

HEAD = Phase(train_from="head", epochs=4, lr=0.1, batch_size=100, views=2)
TAIL = Phase(train_from="blocks.4.1", epochs=3, lr=0.1, batch_size=100, views=3)
IMAGES = {"train": 1000, "val": 100, "test": 200}


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("mobilenetv2_100", 10, 96)


def recipe(head: Phase = HEAD, finetune: Phase = TAIL) -> Recipe:
    return Recipe(name="own", head=head, finetune=finetune)


def caches(
    network: Network,
    found: Callable[[str, int, int], bool] = lambda part, view, split: False,
    budget: int = 10**12,
    flip: bool = True,
) -> Caches:
    sizes = dict.fromkeys(range(len(network.stages)), 1000)
    return Caches(found, sizes, flip, lambda written: budget - written)


def work(
    network: Network,
    own: Recipe,
    kept: Caches,
    images: dict[str, int] = IMAGES,
) -> Work:
    machine = Machine("cpu", "float32", 1, "no")
    plan = make_plan(own, network, machine, images["train"])
    return count(plan, len(network.stages) - 1, images, kept, decoded=0, written=0)


def test_one_pass_makes_a_view_for_both_phases_and_the_baseline(network: Network) -> None:
    tail, head = (
        network.stage_of(network.first_layer("blocks.4.1")),
        network.stage_of(network.first_layer("head")),
    )
    found = work(network, recipe(), caches(network))
    assert sorted(found.passes, key=lambda each: (each.images, each.split)) == [
        Pass(head, False, 100),  # validation, for both phases and the baseline
        Pass(head, False, 200),  # test, for the baseline
        Pass(tail, True, 1000),  # the third view, which only fine-tuning reads
        Pass(head, False, 1000),  # plain
        Pass(head, False, 1000),  # mirrored
    ]
    # Two views at both splits and one more at the tail; validation at both; test at the head.
    assert found.written == 1000 * (1000 * 5 + 100 * 2 + 200)
    assert [phase.live for phase in found.phases] == [False, False]


def test_where_nothing_may_be_mirrored_the_second_view_is_drawn(network: Network) -> None:
    found = work(network, recipe(), caches(network, flip=False))
    assert sum(each.drawn for each in found.passes) == 2


def test_what_the_cache_holds_is_not_counted_again(network: Network) -> None:
    found = work(network, recipe(), caches(network, lambda part, view, split: True))
    assert found.passes == ()
    assert found.written == 0
    later = caches(network, lambda part, view, split: part == "train" and view < 2)
    drawn = [each for each in work(network, recipe(), later).passes if each.images == 1000]
    assert drawn == [Pass(network.stage_of(network.first_layer("blocks.4.1")), True, 1000)]


def test_what_exceeds_the_disk_budget_is_computed_every_epoch(network: Network) -> None:
    found = work(network, recipe(), caches(network, budget=500_000))
    assert [phase.live for phase in found.phases] == [True, True]
    assert not any(phase.val_live for phase in found.phases)  # 100 images fit


def test_fresh_views_and_thawed_trunks_are_never_cached(network: Network) -> None:
    own = recipe(dataclasses.replace(HEAD, views=0), dataclasses.replace(TAIL, train_from="all"))
    found = work(network, own, caches(network))
    assert [phase.live for phase in found.phases] == [True, True]
    assert [phase.val_live for phase in found.phases] == [False, True]


def test_test_part_counts_only_if_it_is_read(network: Network) -> None:
    read = work(network, recipe(), caches(network))
    unread = work(network, recipe(), caches(network), {"train": 1000, "val": 100})
    assert (read.tested, unread.tested) == (300, 100)
    seed = work(network, load_recipe("seed"), caches(network), {"train": 1000, "test": 200})
    assert (seed.tested, seed.fits, seed.phases[0].validated) == (200, 1, 200)


def test_small_data_is_counted_with_the_epochs_it_will_get(network: Network) -> None:
    own = recipe(dataclasses.replace(HEAD, min_steps=80))
    head = work(network, own, caches(network)).phases[0]
    assert (head.plan.steps, head.plan.phase.epochs) == (10, 8)


SPEEDS = Speeds(
    start=5.0,
    decoded=0.01,
    passes={(3, False): PassSpeed(6, 0.1), (2, True): PassSpeed(8, 0.2)},
    phases=(PhaseSpeed(0.5, 0.03, 1.0), PhaseSpeed(2.0, 0.04, 1.5)),
    tested=0.05,
    fit=7.0,
)


def phase_work(name: str, phase: Phase, compiled: bool = False) -> PhaseWork:
    plan = PhasePlan(name, phase, 1000, phase.train_from, 2, compiled, (2,), (2,))
    return PhaseWork(plan, 100, live=False, val_live=False)


def small_work(compiled: bool) -> Work:
    return Work(
        decoded=1300,
        passes=(Pass(3, False, 1000), Pass(2, True, 500)),
        phases=(phase_work("head", HEAD), phase_work("fine-tune", TAIL, compiled)),
        tested=300,
        fits=3,
        rows=1000,
        written=0,
    )


def test_seconds_are_work_times_speed() -> None:
    found = seconds_of(small_work(compiled=False), SPEEDS)
    assert found.pop("end") > 0
    assert found == pytest.approx(
        {
            "start": 5,
            "data": 13,
            "features": 6 + 1000 * 0.1 + 8 + 500 * 0.2,
            "head": 4 * (10 * 0.5 + 100 * 0.03 + 1),
            "fine-tune": 3 * (10 * 2.0 + 100 * 0.04 + 1.5),
            "test": 15,
            "baseline": 21,
        }
    )


def test_compiling_costs_once_and_gains_on_every_step() -> None:
    eager, compiled = (seconds_of(small_work(each), SPEEDS)["fine-tune"] for each in (False, True))
    assert eager - compiled == pytest.approx(3 * 10 * (2 - 2 / COMPILE_SPEEDUP) - COMPILE_SECONDS)


def forecast_for(options: TrainOptions) -> Forecast:
    source = open_source(options.data)
    return forecast(options, source, arrange(source, 0), 40, opened=1.0)


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


def test_a_run_writes_the_bytes_that_were_foretold_and_the_next_one_none(
    options: TrainOptions,
) -> None:
    options = dataclasses.replace(options, recipe="quick")
    found = forecast_for(options)
    assert found.images == {"train": 45, "val": 12, "test": 15}
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


def test_missing_weights_are_the_runs_own_error(options: TrainOptions) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        forecast_for(dataclasses.replace(options, recipe="quick", weights="nowhere.safetensors"))
