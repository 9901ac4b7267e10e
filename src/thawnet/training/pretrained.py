"""The pretrained network at the start of a run: its input size, weights and features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from ..core import console
from ..data.items import Source
from ..data.store import ImageStore, Typical
from ..image.preprocess import Preprocess, store_side
from ..model.backbone import STRIDE, Network, size_step
from ..model.folding import channels_last
from ..model.weights import Weights, fill, load_weights, published_size
from ..net.published import Tell
from ..recipe import Recipe
from .ancestor import keep_known_classes
from .context import origin_of
from .machine import Machine
from .plan import layers_of
from .ranks import World
from .trunk.feeds import Feed, make_feed

Load = Callable[[str, str, int, Tell], Weights]  # as model.weights.load_weights

MOST_OF_TRANSFORMERS = 256  # px a side, unless --size sets more
PROBES = 5  # times that `learns_in` computes the gradients


def fit_input(
    recipe: Recipe, source: Source, typical: Typical, load: Load = load_weights
) -> tuple[Recipe, Weights, Preprocess]:
    """Return the recipe adapted to this data, its weights, and the preprocessing.

    The recipe gets its input size, and no mirroring if that changes what an image means. typical:
    the typical training image. load: loads the weights. Raises WeightsError if they cannot be
    loaded.
    """
    if not source.mirror_safe:
        augment = dataclasses.replace(recipe.augment, flip=False)
        recipe = dataclasses.replace(recipe, augment=augment)
    step = size_step(recipe.backbone)
    seen = typical.short if recipe.fit == "crop" else typical.long

    def chosen(published: int) -> int:
        if recipe.size and step not in (0, STRIDE):
            return step * max(1, round(recipe.size / step))
        return recipe.size or natural_size(published, seen, step, recipe.small_size)

    # Keras publishes weights for several sizes; load the size that suits this data.
    size = chosen(published_size(recipe.backbone))
    weights = load(recipe.weights, recipe.backbone, size, console.say)
    size = chosen(weights.size)
    if recipe.size and recipe.size != size:
        console.say(f"{recipe.size} px are no multiple of the patch, {step} px: {size} px are used")
    recipe = dataclasses.replace(recipe, size=size)
    side = store_side(recipe.size, typical.short, typical.long, recipe.fit)
    spec = Preprocess(
        size=recipe.size,
        side=side,
        mean=weights.mean,
        std=weights.std,
        fit=recipe.fit,
        bits=typical.bits,
        enlarge=recipe.enlarge,
    )
    return recipe, weights, spec


def build_network(recipe: Recipe, source: Source, weights: Weights, machine: Machine) -> Network:
    """Return the pretrained network on the device as a run starts with it, with a head of its own.

    The head's rows of classes that the weights name are theirs, the others new.
    """
    # The head's initial weights are the only random ones; the seed decides them.
    torch.manual_seed(recipe.seed)
    network = Network(
        recipe.backbone, len(source.classes), recipe.size, weights.padding, weights.epsilon
    )
    fill(network, weights, recipe.weights)
    keep_known_classes(network, weights, source.classes)
    layers_of(recipe, network)  # fails for an unknown layer before any image is decoded
    network.check()
    channels_last(network.to(machine.torch_device))
    return network


def learns_in(machine: Machine, network: Network, recipe: Recipe) -> bool:
    """Return whether all layers that train have finite gradients in a machine's precision.

    In bfloat16, torch computes NaN gradients for some layers, such as 3-d convolutions on a CPU. It
    does not happen every time, so the gradients are computed a few times.
    """
    split = min(network.stage_of(layer) for layer in layers_of(recipe, network))
    if machine.torch_dtype == torch.float32 or split == len(network.stages) - 1:
        return True
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, *network.shapes[split], generator=generator).to(machine.torch_device)
    part = network.eval().part(split)
    for _ in range(PROBES):
        with machine.autocast():
            loss = part(x.clone()).float().square().mean()
        gradients = torch.autograd.grad(loss, list(part.parameters()), allow_unused=True)
        if not all(bool(torch.isfinite(each).all()) for each in gradients if each is not None):
            return False
    return True


def natural_size(
    weights_size: int, short_side: int, step: int, small: int = Recipe.small_size
) -> int:
    """Return the input size: that of the weights, or less if the images are much smaller.

    Images are enlarged by at most a quarter: beyond that, time grows and accuracy does not (128 px
    photos were no better at 224 px than at 160, at more than twice the time). Small images are
    enlarged further, as networks trained on larger ones see little in few pixels: images of 32 px
    get at least `small` pixels, smaller ones in proportion (CIFAR's frozen features reach 65 % at
    128 px and 58 % at 96). The size is at least 96 px, below which convolutional networks have
    hardly any positions left to pool, and a multiple of `step`: 32, the networks' largest stride,
    or a transformer's patch size. Transformers get at most 256 px, even if they were trained at
    more (DINOv2: 518 px). A step of 0 means a network with a fixed size.
    """
    if not step:
        return weights_size
    if step != STRIDE:
        weights_size = min(weights_size, MOST_OF_TRANSFORMERS)
    least = 32 * round(small * min(short_side, 32) / 32 / 32)
    enlarged = max(32 * round(1.25 * short_side / 32), least)
    size = max(96, min(weights_size, enlarged))
    return size if step == STRIDE else step * round(size / step)


def pretrained_features(
    recipe: Recipe,
    source: Source,
    weights: Weights,
    spec: Preprocess,
    machine: Machine,
    world: World,
) -> Callable[[ImageStore], Feed]:
    """Return a function from images to the untouched pretrained network's features, (n, d).

    These are the features that a run on the same machine caches. Every rank must request the same
    images in the same order; each computes a share.
    """
    network = build_network(recipe, source, weights, machine)
    pooled = len(network.stages) - 1

    def feed_of(images: ImageStore) -> Feed:
        origin = origin_of(network, recipe, weights, spec, machine, images)
        return make_feed(origin, [pooled], 1, 0, None, world)

    return feed_of
