"""Any timm backbone: in stages as in one, thawed where asked, trained from caches as without."""

from __future__ import annotations

import copy
import re

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thawnet.bundle.meaning import Meaning
from thawnet.bundle.onnx import to_onnx
from thawnet.core.errors import UsageError
from thawnet.image.preprocess import Preprocess
from thawnet.model.backbone import Network
from thawnet.model.depthwise import mend_depthwise
from thawnet.model.folding import channels_last, frozen_copy
from thawnet.model.thawing import first_layer, thaw, training_mode
from thawnet.training.gate import outputs

# Where 'upper' and 'middle' start.
BACKBONES = {
    "mobilenetv2_100": ("blocks.4.0", "blocks.3.0"),
    "mobilenetv3_large_100": ("blocks.4.0", "blocks.3.0"),
    "resnet50": ("layer3.4", "layer3.0"),
    "efficientnet_b0": ("blocks.4.1", "blocks.3.0"),
    "convnext_tiny": ("stages.2.blocks.6", "stages.2.downsample.1"),
    "vit_small_patch16_224": ("blocks.6", "patch_embed"),
}
SIZE = 64
SMALLEST = "test_|atto|femto|pico|nano|xxs|tiny|mini|_xs|_s|small"  # in timm's names
CPU = torch.device("cpu")


# timm's own for tests, of the same families; what people train takes ten times as long.
SMALL = ("test_efficientnet", "test_resnet", "test_convnext", "test_vit")
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]


@pytest.fixture(scope="module", params=[*SMALL, *LARGE])
def network(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    built = Network(request.param, 5, SIZE)
    for module in built.net.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that folding must honour
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return built.eval()


@torch.no_grad()
def test_every_split_computes_what_the_whole_network_computes(network: Network) -> None:
    images = torch.randn(2, 3, SIZE, SIZE)
    expected = network(images)
    x = images
    for place in range(len(network.stages)):
        assert torch.allclose(network.part(place)(x.clone()), expected, rtol=1e-4, atol=1e-5)
        x = network.part(place, place + 1)(x)
    assert torch.allclose(x, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_of_one_pixel_are_laid_out_like_the_others() -> None:
    assert channels_last(nn.Conv2d(4, 8, 1)).weight.stride() == (4, 1, 4, 4)


@pytest.mark.slow  # timm has none for tests
def test_masks_of_five_dimensions_do_not_stop_a_swin_transformer() -> None:
    network = channels_last(Network("swin_tiny_patch4_window7_224", 3, 224))
    assert network.net.patch_embed.proj.weight.is_contiguous(memory_format=torch.channels_last)
    frozen = frozen_copy(network.part(0), torch.float32, CPU)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(frozen(images), network.eval()(images), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_folded_copy_computes_the_same_and_leaves_the_network_alone(network: Network) -> None:
    before = copy.deepcopy(network.net.state_dict())
    images = torch.randn(2, 3, SIZE, SIZE)
    folded = frozen_copy(network.part(0), torch.float32, torch.device("cpu"))
    assert torch.allclose(folded(images), network(images), rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(before[name], value) for name, value in network.net.state_dict().items())


def test_stages_are_named_once_and_hold_every_weight_once(network: Network) -> None:
    assert len(set(network.stages)) == len(network.stages)
    assert network.stages[-1] == "head"
    held = {
        name
        for name, module in network.net.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }
    assert {*network.layers[:-1], network.head_name} == held


@pytest.mark.parametrize("backbone", BACKBONES)
def test_upper_and_middle_part_start_where_the_resolution_has_fallen_to_a_sixteenth(
    backbone: str,
) -> None:
    network = Network(backbone, 5, SIZE)
    found = [
        network.stages[network.stage_of(first_layer(network, part))] for part in ("upper", "middle")
    ]
    assert found == list(BACKBONES[backbone])


def test_depth_of_every_parameter_falls_from_the_images_to_the_logits(network: Network) -> None:
    depths = network.depths
    assert set(depths) == {name for name, _ in network.net.named_parameters()}
    assert {depths[name] for name in depths if name.startswith(network.head_name)} == {0}
    of_layers = [
        depths[f"{layer}.weight"] for layer in network.layers if f"{layer}.weight" in depths
    ]
    assert of_layers == sorted(of_layers, reverse=True)
    assert of_layers[0] > 3


def test_last_stage_takes_pooled_features(network: Network) -> None:
    with torch.no_grad():
        features = network.part(0, -1)(torch.randn(2, 3, SIZE, SIZE))
    assert features.shape == (2, network.head.in_features)


@pytest.mark.parametrize("train_from", ["head", "upper", "all"])
def test_two_steps_on_cached_activations_equal_those_on_images(
    network: Network, train_from: str
) -> None:
    assert_same_training(network, train_from)


@pytest.mark.slow
def test_two_steps_from_every_split_equal_those_on_images(network: Network) -> None:
    # Every fourth of the large ones, of which a step takes a second.
    for stage in network.stages[:: 4 if network.backbone in BACKBONES else 1]:
        if any(layer == stage or layer.startswith(f"{stage}.") for layer in network.layers):
            assert_same_training(network, stage)


def assert_same_training(network: Network, train_from: str) -> None:
    """Compare two steps of plain descent, on activations computed once and on images."""
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, SIZE, SIZE), torch.arange(8) % 5

    def trained(cached: bool) -> dict[str, torch.Tensor]:
        own = copy.deepcopy(network)
        thaw(own, first_layer(own, train_from))
        training_mode(own, "train", 0.1)
        split = own.stage_of(first_layer(own, train_from))
        x = images
        if cached and split:
            with torch.no_grad():
                x = own.part(0, split)(images)
        optimizer = torch.optim.SGD(own.trainable().values(), lr=1e-3)
        for _ in range(2):
            logits = own.part(split)(x) if cached else own(x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, labels).backward()
            optimizer.step()
        return own.net.state_dict()

    one, other = trained(cached=True), trained(cached=False)
    for name, value in one.items():
        assert torch.allclose(value, other[name], rtol=1e-3, atol=1e-5), (train_from, name)


def test_frozen_weights_do_not_move_and_thawed_ones_do(network: Network) -> None:
    own = copy.deepcopy(network)
    thaw(own, first_layer(own, "upper"))
    training_mode(own, "train", 0.1)
    first = own.layers.index(first_layer(own, "upper"))
    logits = own(torch.randn(8, 3, SIZE, SIZE))
    nn.functional.cross_entropy(logits, torch.arange(8) % 5).backward()
    for place, layer in enumerate(own.layers[:-1]):
        module = own.net.get_submodule(layer)
        for parameter in module.parameters(recurse=False):
            assert parameter.requires_grad == (place >= first)
            assert (parameter.grad is not None) == (place >= first), layer
    assert own.head.weight.grad is not None


def test_mended_network_computes_the_same(network: Network) -> None:
    own = copy.deepcopy(network)
    thaw(own, first_layer(own, "all"))
    mend_depthwise(own.net)
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        for split in (0, own.stage_of(first_layer(own, "upper"))):
            x = network.part(0, split)(images) if split else images
            assert torch.allclose(own.part(split)(x), network(images), rtol=1e-3, atol=1e-4)


def test_exported_network_computes_the_same_mended_or_not(network: Network) -> None:
    spec = Preprocess(SIZE, 40, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    own = copy.deepcopy(network)
    thaw(own, first_layer(own, "all"))
    mend_depthwise(own.net)
    meaning = Meaning(tuple("abcde"), spec)
    exported, mended = (to_onnx(outputs(each), meaning) for each in (network, own))
    assert exported == mended
    pixels = np.random.default_rng(1).integers(0, 256, (5, 40, 40, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    images = F.interpolate(images, size=(SIZE, SIZE), mode="bicubic") / 255
    mean, std = torch.tensor([spec.mean, spec.std]).view(2, 1, 3, 1, 1)
    with torch.no_grad():
        wanted = network((images - mean) / std).numpy()
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    got, features = session.run(["logits", "features"], {"images": pixels})
    assert np.allclose(got, wanted, rtol=1e-3, atol=1e-3)
    weight, bias = (each.detach().numpy() for each in (network.head.weight, network.head.bias))
    assert np.allclose(features @ weight.T + bias, got, atol=1e-3)
    names = [each.name for each in session.get_outputs()]
    convolutional = "vit" not in network.backbone
    assert names == ["logits", "features", *(["feature_map"] if convolutional else [])]
    if convolutional and network.backbone != "mobilenetv3_large_100":  # a layer behind its pooling
        (found,) = session.run(["feature_map"], {"images": pixels})
        assert found.shape == (5, features.shape[1], 2, 2)


@pytest.mark.parametrize(
    ("backbone", "told"),
    [
        ("resnet5o", "timm has no such model; the nearest are"),
        (
            "crossvit_tiny_240",
            "cannot be cut into a frozen and a trained part (what it computes",
        ),
        ("mobilenetv2_100.nonsense", "timm has no weights 'nonsense' of it; it has ra_in1k"),
        ("MOBILENETV2_100", "did you mean 'mobilenetv2_100'?"),
        ("mobilenet_v2", "did you mean 'mobilenetv2_100'?"),
        ("vit_b_16", "did you mean 'vit_base_patch16_224'?"),
        ("MobileNetV2", "did you mean 'mobilenetv2_100'?"),
        ("efficientnet_b0_imagenet", "did you mean 'efficientnet_b0'?"),
        ("resnet51", "the nearest are 'resnet51q', 'resnet50', "),
        ("xyzzy", "timm has no such model; `thawnet backbones` lists some to begin with"),
        ("dinov2", "the nearest are 'vit_small_patch14_dinov2', "),
        ("dinov2_vits14", "the nearest are 'vit_small_patch14_dinov2', "),
    ],
)
def test_backbone_that_can_not_be_used_is_one_sentence(backbone: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Network(backbone, 5, 224)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "backbone",
    [
        "efficientvit_m0",  # attention that keeps its biases for evaluation
        "levit_128s",  # the same, and two classifiers
        "dla46x_c",  # a convolution for a classifier
        "convit_tiny",  # positions kept from the first images
        "vit_tiny_patch16_dinov3_qkvb",  # rotary embeddings, a second tensor past every block
        "coat_tiny",  # blocks side by side
    ],
)
def test_network_of_an_odd_kind_trains_from_its_upper_part(backbone: str) -> None:
    torch.manual_seed(0)
    network = Network(backbone, 5, SIZE)
    network.check()
    layer = first_layer(network, "upper")
    thaw(network, layer)
    training_mode(network, "train", 0.1)
    split = network.stage_of(layer)
    before = {name: value.clone() for name, value in network.trainable().items()}
    images = torch.randn(4, 3, SIZE, SIZE)
    with torch.no_grad():
        features = network.part(0, split)(images.clone()) if split else images
    optimiser = torch.optim.SGD(network.trainable().values(), lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(network.part(split)(features.clone()), torch.arange(4)).backward()
        optimiser.step()
    moved = [not torch.equal(before[name], value) for name, value in network.trainable().items()]
    assert sum(moved) > 0.8 * len(moved)
    network.eval()
    with torch.no_grad():
        staged, whole = network.part(split)(features.clone()), network(images.clone())
    assert torch.allclose(staged, whole, rtol=1e-4, atol=1e-5)


def test_rotary_embeddings_leave_blocks_to_cut_between() -> None:
    network = Network("vit_tiny_patch16_dinov3_qkvb", 5, SIZE)
    assert [f"blocks.{number}" for number in range(12)] == [
        stage for stage in network.stages if stage.startswith("blocks")
    ]
    assert first_layer(network, "upper") == "blocks.6.norm1"


def test_size_that_a_backbone_can_not_take_is_one_sentence() -> None:
    network = Network("inception_v3", 5, 32)
    with pytest.raises(UsageError, match="cannot take images of 32 x 32 pixels"):
        network.check()


def test_padding_that_a_backbone_does_not_know_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="'vit_small_patch16_224' cannot be built"):
        Network("vit_small_patch16_224", 5, 224, padding="same")


@pytest.mark.slow
def test_a_model_of_most_timm_families_can_be_used() -> None:
    """One model of each of timm's files, in stages as in one; a few cannot, and say so."""
    import timm

    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(timm.model_entrypoint(name).__module__, []).append(name)
    usable, refused = [], []
    for names in families.values():
        name = min(names, key=lambda name: (not re.search(SMALLEST, name), len(name)))
        config = timm.get_pretrained_cfg(name)
        size = config.input_size[-1] if config else 224
        if size > 512:  # which takes up to a minute; most of these take smaller images too
            size = 256
        try:
            Network(name, 5, size).check()
            usable.append(name)
        except UsageError as error:
            refused.append(str(error))
    assert len(usable) >= 0.8 * (len(usable) + len(refused)), refused


def test_head_is_the_classifier_and_no_norm_before_it() -> None:
    network = Network("test_convnext", 5, SIZE)
    assert "head.norm" in network.layers
    assert first_layer(network, "head") == "head"


@pytest.mark.parametrize(
    ("backbone", "stage"),
    [("mvitv2_tiny", ""), ("nest_tiny", "levels.2.transformer_encoder.7")],
)
@pytest.mark.slow  # timm has none so small
def test_upper_part_is_no_norm_alone_where_blocks_cannot_be_cut_apart(
    backbone: str, stage: str
) -> None:
    network = Network(backbone, 5, 224)
    layer = first_layer(network, "upper")
    assert layer.startswith(stage or network.layers[0])
    thaw(network, layer)
    thawed = sum(value.numel() for value in network.trainable().values())
    assert thawed > 0.1 * sum(value.numel() for value in network.net.parameters())


def test_network_whose_blocks_hand_on_more_than_a_tensor_is_one_sentence() -> None:
    network = Network("naflexvit_base_patch16_parfac_gap", 5, 224)
    with pytest.raises(UsageError, match="hands a tuple to 'getitem'"):
        network.check()
