"""What a phase becomes on small and on large data."""

from __future__ import annotations

import dataclasses

import pytest

from thawnet.image.preprocess import Preprocess
from thawnet.model.backbone import Network
from thawnet.recipe import Phase, Recipe, load_recipe
from thawnet.training.machine import Machine
from thawnet.training.plan import (
    MOST_TIMES,
    PhasePlan,
    adapted,
    for_small,
    is_small,
    make_plan,
    steps_per_epoch,
    with_layer,
)

PHASE = Phase(
    train_from="head",
    epochs=3,
    lr=0.1,
    min_steps=100,
    max_steps=1000,
    batch_size=256,
    views=2,
    view_images=10_000,
)


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "views"),
    [
        (50_000, 256, 3, 2),
        (1_000_000, 256, 1, 1),
        (800, 100, 13, 12),
        (80, 16, 20, 20),
        (3, 3, 24, 24),
    ],
)
def test_data_decides_batch_epochs_and_views(
    images: int, batch: int, epochs: int, views: int
) -> None:
    fitted = adapted(PHASE, images)
    assert (fitted.batch_size, fitted.epochs, fitted.views) == (batch, epochs, views)
    assert fitted.lr == pytest.approx(0.1 * (batch / 256) ** 0.5)


def test_what_fits_already_stays_as_it_is() -> None:
    fitted = adapted(PHASE, 50_000)
    assert fitted == PHASE
    assert adapted(dataclasses.replace(PHASE, views=0), 80).views == 0


@pytest.mark.parametrize("images", [4, 72, 900, 3500, 45_000, 2_000_000])
def test_quick_does_a_sensible_number_of_steps_on_any_data(images: int) -> None:
    for phase in load_recipe("quick").phases:
        fitted = adapted(phase, images)
        steps = fitted.epochs * steps_per_epoch(fitted, images)
        assert steps >= phase.min_steps or fitted.epochs == MOST_TIMES * phase.epochs
        assert steps <= max(phase.max_steps, steps_per_epoch(fitted, images))


@pytest.mark.parametrize(
    ("every", "images", "parts"),
    [
        (0, 1_000_000, 1),
        (20_000, 47_500, 2),
        (20_000, 3_000, 1),
        (20_000, 1_000_000, 50),
        (1, 600, 2),
    ],
)
def test_large_epochs_are_validated_in_parts_of_at_least_a_step(
    every: int, images: int, parts: int
) -> None:
    phase = dataclasses.replace(PHASE, validate_every=every)
    assert PhasePlan("head", phase, images, "head", 0, False, False, (), ()).rounds == parts


HEAD = Phase(train_from="head", epochs=4, lr=0.1, batch_size=100, views=2)
TAIL = Phase(train_from="blocks.4.1", epochs=3, lr=0.1, batch_size=100, views=3)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("mobilenetv2_100", 10, 96)


def planned(network: Network, head: Phase, tail: Phase, compiling: str = "no") -> list[PhasePlan]:
    own = Recipe(name="own", head=head, finetune=tail)
    return make_plan(own, network, Machine("cpu", "float32", 1, compiling), 1000, {1: 50})


def test_plan_resolves_layers_splits_and_a_batch_that_memory_asked_for(network: Network) -> None:
    head, tail = planned(network, HEAD, TAIL)
    assert (head.layer, network.stages[head.split]) == ("head", "head")
    assert (tail.layer, network.stages[tail.split]) == ("blocks.4.1.conv_pw", "blocks.4.1")
    assert (head.phase.batch_size, head.steps) == (100, 10)
    assert (tail.phase.batch_size, tail.steps) == (50, 20)
    assert tail.phase.lr == pytest.approx(0.1 * 0.5**0.5)


def test_one_pass_caches_what_a_later_phase_reads_of_its_views(network: Network) -> None:
    early = dataclasses.replace(HEAD, train_from="conv_head", views=2)
    for views, both in ((3, True), (2, True), (1, False)):
        later = dataclasses.replace(TAIL, views=views)
        first, second = planned(network, early, later)
        assert first.cached_splits == ((first.split, second.split) if both else (first.split,))
        assert first.cached_val_splits == (first.split, second.split)  # which has one view always
        assert second.cached_splits == (second.split,)


def test_only_the_tail_is_compiled(network: Network) -> None:
    assert [phase.compiled for phase in planned(network, HEAD, TAIL, "yes")] == [False, True]


def test_transformer_is_fine_tuned_as_they_are_published_unless_told_otherwise() -> None:
    recipe = load_recipe("quick")
    machine = Machine("cpu", "float32", 1, "no")
    vit, convolutional = (Network(name, 3, 64) for name in ("test_vit", "test_resnet"))
    head, tail = (plan.phase for plan in make_plan(recipe, vit, machine, 20_000))
    own_head, own_tail = (plan.phase for plan in make_plan(recipe, convolutional, machine, 20_000))
    assert head == own_head
    assert own_tail.layer_decay == 1
    assert tail.lr == pytest.approx(0.3 * own_tail.lr)
    assert tail.warmup == 0.1
    # 0.75 for each of its 6 blocks, however many stages they are cut into.
    assert tail.layer_decay ** (len(vit.stages) / 6) == pytest.approx(0.75)
    plans = make_plan(recipe, vit, machine, 20_000, rates_are_own=True)
    assert [plan.phase for plan in plans] == [own_head, own_tail]


@pytest.mark.parametrize(
    ("size", "side", "images", "folded", "small"),
    [
        (160, 128, 3000, False, True),  # photos
        (128, 32, 3000, False, False),  # CIFAR's, enlarged fourfold
        (160, 128, 5001, False, False),
        (160, 128, 800, True, False),  # are few
    ],
)
def test_small_sets_of_photos_are_told_from_others(
    network: Network, size: int, side: int, images: int, folded: bool, small: bool
) -> None:
    recipe = load_recipe("quick")
    half = (0.5, 0.5, 0.5)
    spec = Preprocess(size=size, side=side, mean=half, std=half)
    assert is_small(recipe, network, spec, images, folded) == small
    layer = with_layer(recipe, small).finetune.train_from
    assert layer == ("middle" if small else "upper")
    tail = dataclasses.replace(recipe.finetune, train_from="blocks.2")
    named = dataclasses.replace(recipe, finetune=tail)
    assert with_layer(named, small) == named


def test_small_sets_are_tuned_as_few_photos_are_but_may_stop_early() -> None:
    phase = load_recipe("quick").finetune
    small = for_small(phase, 3000)
    assert (small.batch_size, small.batch_norm, small.epochs, small.views) == (16, "frozen", 8, 8)
    assert (small.lr, small.patience) == (phase.lr, phase.patience)
    fixed = dataclasses.replace(phase, min_steps=0)
    assert for_small(fixed, 3000) == fixed
