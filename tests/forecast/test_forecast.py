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
from thawnet.forecast.estimate import Caches, Pass, PhaseSpeed, estimate
from thawnet.forecast.forecast import Forecast, forecast
from thawnet.model.backbone import Network
from thawnet.model.thawing import first_layer
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


class Told:
    """Speeds that are easy to multiply by head, and what was asked of them."""

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.live: list[tuple[bool, bool]] = []

    def passing(self, each: Pass) -> float:
        self.passes.append(each)
        return 6 + each.images * (0.2 if each.drawn else 0.1)

    def phase(self, plan: PhasePlan, live: bool, val_live: bool) -> PhaseSpeed:
        self.live.append((live, val_live))
        return PhaseSpeed(0.5, 0.03, 1.0) if plan.name == "head" else PhaseSpeed(2.0, 0.04, 1.5)

    def test(self) -> float:
        return 0.05

    def fit(self, rows: int) -> float:
        return rows / 100


def estimated(
    network: Network,
    own: Recipe,
    kept: Caches,
    images: dict[str, int] = IMAGES,
    compiling: str = "no",
) -> tuple[dict[str, float], bool, Told]:
    told = Told()
    plan = make_plan(own, network, Machine("cpu", "float32", 1, compiling), images["train"])
    return *estimate(plan, len(network.stages) - 1, images, kept, told), told


def place(network: Network, name: str) -> int:
    return network.stage_of(first_layer(network, name))


def test_one_pass_makes_a_view_for_both_phases_and_the_baseline(network: Network) -> None:
    tail, head = place(network, "blocks.4.1"), place(network, "head")
    kept = caches(network)
    seconds, fits, told = estimated(network, recipe(), kept)
    assert sorted(told.passes, key=lambda each: (each.images, each.split)) == [
        Pass(head, False, 100),  # validation, for both phases and the baseline
        Pass(head, False, 200),  # test, for the baseline
        Pass(tail, True, 1000),  # the third view, which only fine-tuning reads
        Pass(head, False, 1000),  # plain
        Pass(head, False, 1000),  # mirrored
    ]
    assert seconds["features"] == pytest.approx(5 * 6 + 2300 * 0.1 + 1000 * 0.2)
    # Two views at both splits and one more at the tail; validation at both; test at the head.
    assert kept.written == 1000 * (1000 * 5 + 100 * 2 + 200)
    assert fits
    assert told.live == [(False, False), (False, False)]


def test_where_nothing_may_be_mirrored_the_second_view_is_drawn(network: Network) -> None:
    _, _, told = estimated(network, recipe(), caches(network, flip=False))
    assert sum(each.drawn for each in told.passes) == 2


def test_what_the_cache_holds_is_not_counted_again(network: Network) -> None:
    kept = caches(network, lambda part, view, split: True)
    _, _, told = estimated(network, recipe(), kept)
    assert told.passes == []
    assert kept.written == 0
    later = caches(network, lambda part, view, split: part == "train" and view < 2)
    _, _, told = estimated(network, recipe(), later)
    drawn = [each for each in told.passes if each.images == 1000]
    assert drawn == [Pass(place(network, "blocks.4.1"), True, 1000)]


def test_what_exceeds_the_disk_budget_is_computed_every_epoch(network: Network) -> None:
    _, fits, told = estimated(network, recipe(), caches(network, budget=500_000))
    assert not fits
    assert told.live == [(True, False), (True, False)]  # 100 images fit


def test_fresh_views_and_thawed_trunks_are_never_cached(network: Network) -> None:
    own = recipe(dataclasses.replace(HEAD, views=0), dataclasses.replace(TAIL, train_from="all"))
    _, fits, told = estimated(network, own, caches(network))
    assert fits  # there is nothing that would not
    assert told.live == [(True, False), (True, True)]


def test_test_part_counts_only_if_it_is_read(network: Network) -> None:
    def seconds_of(own: Recipe, images: dict[str, int]) -> dict[str, float]:
        return estimated(network, own, caches(network), images)[0]

    assert seconds_of(recipe(), IMAGES)["test"] == pytest.approx(300 * 0.05)
    assert seconds_of(recipe(), {"train": 1000, "val": 100})["test"] == pytest.approx(100 * 0.05)
    seed = seconds_of(load_recipe("seed"), {"train": 1000, "test": 200})
    assert seed["test"] == pytest.approx(200 * 0.05)
    assert seed["baseline"] == pytest.approx(10)  # one fit: nothing chooses a penalty


def test_seconds_are_work_times_speed(network: Network) -> None:
    own = recipe(dataclasses.replace(HEAD, min_steps=80))  # which makes 8 epochs of its 10 steps
    seconds, _, _ = estimated(network, own, caches(network))
    assert seconds["head"] == pytest.approx(8 * (10 * 0.5 + 100 * 0.03 + 1))
    assert seconds["fine-tune"] == pytest.approx(3 * (10 * 2.0 + 100 * 0.04 + 1.5))
    assert seconds["baseline"] == pytest.approx(3 * 10)


def test_compiling_costs_once_and_gains_on_every_step(network: Network) -> None:
    eager, compiled = (
        estimated(network, recipe(), caches(network), compiling=how)[0]["fine-tune"]
        for how in ("no", "yes")
    )
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
