"""Weights in the forms that people have: told by their content, named as other libraries do."""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from support.runs import TINY
from thawnet import job
from thawnet.bundle.model import load
from thawnet.core.errors import WeightsError
from thawnet.model.backbone import Network
from thawnet.model.names import named_in
from thawnet.model.weight_files import stated_architecture
from thawnet.model.weights import fill, load_weights
from thawnet.recipe import TrainOptions
from thawnet.training.run_folder import Outcome

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """Return the random weights of a small network, with its head."""
    torch.manual_seed(0)
    return dict(timm.create_model(TINY).state_dict())


def filled(path: Path, backbone: str = TINY, size: int = 64) -> Network:
    """Return a network with the weights of a file or folder."""
    weights = load_weights(str(path), backbone)
    network = Network(backbone, 5, size, weights.padding, weights.epsilon)
    fill(network, weights, str(path))
    return network


def require_same(network: Network, tensors: Tensors) -> None:
    """Require a network to hold tensors everywhere but in its head."""
    for name, value in network.net.state_dict().items():
        if not name.startswith(f"{network.head_name}."):
            assert torch.equal(value, tensors[name]), name


@pytest.mark.parametrize(
    "saved",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda tensors: (
            {"model": {key: 0 * each for key, each in tensors.items()}} | {"model_ema": tensors}
        ),
        lambda tensors: {
            "state_dict": {f"module.{key}": each for key, each in tensors.items()},
            "args": argparse.Namespace(lr=0.1),
        },
        lambda tensors: {f"module.{key}": each for key, each in tensors.items()},
        lambda tensors: {
            "state_dict": {f"model.backbone.{key}": each for key, each in tensors.items()}
        },
    ],
    ids=["plain", "checkpoint", "averaged", "parallel checkpoint", "parallel", "nested"],
)
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".ckpt", ".safetensors"])
def test_files_of_pytorch_are_read_whatever_they_are_called(
    tmp_path: Path, tensors: Tensors, saved: Callable[[Tensors], Any], suffix: str
) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save(saved(tensors), path)
    require_same(filled(path), tensors)


def test_files_of_old_pytorch_are_read(tmp_path: Path, tensors: Tensors) -> None:
    torch.save(tensors, tmp_path / "w.tar", _use_new_zipfile_serialization=False)
    require_same(filled(tmp_path / "w.tar"), tensors)


class Harmful:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"model": Harmful(trace)}, tmp_path / "w.pth")
    (tmp_path / "p.pth").write_bytes(pickle.dumps(Harmful(trace)))
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    for name in ("w.pth", "p.pth", "module.pth"):
        with pytest.raises(WeightsError, match="code in it is not run here: where you trust it"):
            filled(tmp_path / name)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("theirs", "timms"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("resnet18", "resnet18"),
        ("efficientnet_b0", "efficientnet_b0"),
        pytest.param("convnext_tiny", "convnext_tiny", marks=pytest.mark.slow),
        pytest.param("vit_b_16", "vit_base_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_weights_of_torchvision_compute_what_they_do_there(
    tmp_path: Path, theirs: str, timms: str
) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.get_model(theirs, weights=None).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    network = filled(tmp_path / "w.pth", timms, 224)
    last = [name for name, each in reference.named_modules() if isinstance(each, nn.Linear)][-1]
    features: list[torch.Tensor] = []
    reference.get_submodule(last).register_forward_pre_hook(
        lambda _module, inputs: features.append(inputs[0])
    )
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        reference(images)
        own = network.eval().part(0, len(network.stages) - 1)(images.clone())
    assert (own - features[0]).abs().max() < 1e-3 * features[0].std()


def test_order_alone_is_no_proof(tmp_path: Path) -> None:
    """Two layers of one shape that changed places are other weights, which are not filled in."""
    tensors = torchvision.models.mobilenet_v2(weights=None).state_dict()
    names = list(tensors)
    one, two = (f"features.{number}.conv.2.weight" for number in (9, 10))
    order = [two if name == one else one if name == two else name for name in names]
    torch.save({name: tensors[name] for name in order}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="do not fit backbone 'mobilenetv2_100'"):
        filled(tmp_path / "w.pth", "mobilenetv2_100")


TRANSFORMERS = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "attn.proj": "attention.output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def as_transformers(tensors: Tensors) -> Tensors:
    """Return a ViT's tensors under the names of transformers' ViTModel."""
    named: Tensors = {}
    for key, value in tensors.items():
        new = key.replace("blocks.", "encoder.layer.")
        for own, theirs in TRANSFORMERS.items():
            new = new.replace(own, theirs)
        new = new.replace("norm.", "layernorm.") if key.startswith("norm.") else new
        if ".attn.qkv." in key:
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                named[f"vit.{new.replace('attn.qkv', f'attention.attention.{name}')}"] = part
        else:
            named[f"vit.{new}"] = value
    return named | {"vit.pooler.dense.weight": torch.zeros(1), "classifier.weight": torch.zeros(1)}


def test_vision_transformer_of_transformers_is_renamed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = "vit_tiny_patch16_224"
    tensors = dict(timm.create_model(backbone, num_classes=0).state_dict())
    (tmp_path / "vit").mkdir()
    save_file(
        {key: each.contiguous() for key, each in as_transformers(tensors).items()},
        tmp_path / "vit" / "model.safetensors",
    )
    config = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(config))
    (tmp_path / "vit" / "config.json").write_text('{"model_type": "vit", "image_size": 224}')
    weights = load_weights(str(tmp_path / "vit"), backbone)
    assert (weights.mean, weights.std, weights.size) == ((0.5,) * 3, (0.25,) * 3, 224)
    require_same(filled(tmp_path / "vit", backbone, 224), tensors)


def test_position_embeddings_are_resampled_to_the_size(tmp_path: Path, tensors: Tensors) -> None:
    tensors = dict(timm.create_model("test_vit", img_size=160).state_dict())
    torch.save(tensors, tmp_path / "w.pth")
    network = filled(tmp_path / "w.pth", "test_vit", 96)
    assert network.net.pos_embed.shape != tensors["pos_embed"].shape
    same = filled(tmp_path / "w.pth", "test_vit", 160)
    assert torch.equal(same.net.pos_embed, tensors["pos_embed"])
    assert torch.equal(network.net.blocks[0].attn.qkv.weight, tensors["blocks.0.attn.qkv.weight"])


def test_folder_of_the_hub_says_whose_weights_it_holds(tmp_path: Path, tensors: Tensors) -> None:
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    published = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 160, 160]}
    config = {"architecture": TINY, "pretrained_cfg": published}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_weights(str(tmp_path), TINY)
    assert weights.tells_pixels
    assert (weights.mean, weights.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert weights.size == 160
    with pytest.raises(WeightsError, match=f"are of {TINY}, not of resnet18"):
        load_weights(str(tmp_path), "resnet18")


def test_run_is_weights_to_start_from(finished: Outcome) -> None:
    weights = load_weights(str(finished.folder), TINY)
    bundle = load_weights(str(finished.folder / "bundle"), TINY)
    assert weights.digest == bundle.digest
    assert weights.architecture == TINY
    filled(finished.folder)


def test_folder_without_weights_lists_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"the folder holds none of model.safetensors, bundle/mo"
    ):
        load_weights(str(tmp_path), TINY)


def test_run_that_is_not_finished_is_no_weights_yet(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(WeightsError, match=r"is not finished; .* thawnet train --resume "):
        load_weights(str(tmp_path), TINY)


def test_folder_of_downloads_names_the_files_that_it_could_be(tmp_path: Path) -> None:
    (tmp_path / "resnet50-0676ba61.pth").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(WeightsError, match=r"or a file, as 'resnet50-0676ba61.pth' in it"):
        load_weights(str(tmp_path), TINY)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "--weights is empty; name weights, or leave it out"),
        ("timm/resnet50.a1_in1k", "for the Hugging Face hub's say hf-hub:timm/resnet50.a1_in1k;"),
    ],
)
def test_words_that_are_no_file_are_told_what_to_say(name: str, told: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(name, TINY)
    assert told in str(caught.value)


def test_weights_that_nobody_published_are_not_asked_of_the_hub() -> None:
    with pytest.raises(WeightsError, match="timm publishes no weights of 'efficientnet_b6'"):
        load_weights("imagenet", "efficientnet_b6")


def test_misspelt_file_is_answered_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "resnet18-f37072fd.pth").touch()
    with pytest.raises(WeightsError, match=r"there is '.*/resnet18-f37072fd.pth'; "):
        load_weights(str(tmp_path / "resnet18-f37072df.pth"), TINY)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("mobilenet_v2-7ebf99e0.pth", "look like those of --backbone mobilenetv2_100"),
        ("my_network.pth", "say their network with --backbone; `thawnet backbones WORD`"),
    ],
)
def test_misfit_is_told_what_the_files_name_tells(
    tmp_path: Path, tensors: Tensors, file: str, told: str
) -> None:
    torch.save(tensors, tmp_path / file)
    with pytest.raises(WeightsError, match=told):
        filled(tmp_path / file, "resnet18")


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("resnet50-0676ba61.pth", "resnet50"),
        ("vit_b_16-c867db91.pth", "vit_base_patch16_224"),
        ("mobilenetv2_100_ra-b33bc2c4.pth", "mobilenetv2_100"),
        ("vit_small_patch14_dinov2.lvd142m.safetensors", "vit_small_patch14_dinov2"),
        ("model_best.pth.tar", ""),
    ],
)
def test_names_of_published_files_tell_the_model(file: str, model: str) -> None:
    assert named_in(file) == model


def test_values_that_no_network_has_are_refused(tmp_path: Path, tensors: Tensors) -> None:
    path = tmp_path / "w.pth"
    torch.save({key: torch.zeros_like(each) for key, each in tensors.items()}, path)
    with pytest.raises(WeightsError, match="all of them are zero"):
        filled(path)
    torch.save(tensors | {"bn1.running_var": -tensors["bn1.running_var"]}, path)
    with pytest.raises(WeightsError, match=r"'bn1.running_var' holds negative variances"):
        filled(path)


@pytest.mark.parametrize("factor", [1e20, 1e38])
def test_weights_that_overflow_are_to_blame_not_the_network(
    tmp_path: Path, tensors: Tensors, factor: float
) -> None:
    torch.save(
        tensors | {"conv_head.weight": tensors["conv_head.weight"] * factor}, tmp_path / "w.pth"
    )
    with pytest.raises(WeightsError, match=r"the features that they compute reach"):
        filled(tmp_path / "w.pth").check()


def test_weights_that_see_no_difference_between_images_are_told(
    options: TrainOptions, tmp_path: Path, tensors: Tensors, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, told in (("conv_head.weight", True), ("classifier.weight", False)):
        torch.save(tensors | {name: torch.zeros_like(tensors[name])}, tmp_path / "w.pth")
        job.train(replace(options, weights=str(tmp_path / "w.pth"), epochs=(1, 0)))
        said = capfd.readouterr().err
        assert ("the frozen features are nearly the same for all images" in said) == told


def test_misfit_tells_the_first_name_that_differs_on_both_sides(
    tmp_path: Path, tensors: Tensors
) -> None:
    others = dict(tensors)
    torch.save({"stem.weight": others.pop("conv_stem.weight")} | others, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"no tensor 'conv_stem.weight', unknown tensor 'stem.weight'; 1 missing"
    ):
        filled(tmp_path / "w.pth")


def test_normalisation_that_is_assumed_is_said(
    options: TrainOptions, tmp_path: Path, tensors: Tensors, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(tensors, tmp_path / "w.pth")
    job.train(replace(options, weights=str(tmp_path / "w.pth"), epochs=(1, 0)))
    mean = " ".join(f"{value:g}" for value in timm.get_pretrained_cfg(TINY).mean)
    said = capfd.readouterr().err
    assert f"the weights do not say how pixels were normalised: mean {mean} and std " in said


def test_parallel_training_of_a_network_whose_first_name_comes_again_is_read(
    tmp_path: Path,
) -> None:
    tensors = dict(timm.create_model("resnet18").state_dict())  # conv1 is in every block too
    torch.save({f"module.{key}": each for key, each in tensors.items()}, tmp_path / "w.pth")
    require_same(filled(tmp_path / "w.pth", "resnet18"), tensors)


def test_weights_that_say_their_network_need_no_backbone_beside_them(
    options: TrainOptions, tmp_path: Path, tensors: Tensors
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"architecture": TINY}))
    first = job.train(replace(options, backbone=None, weights=str(folder), epochs=(1, 0)))
    assert load(first.folder).backbone == TINY
    assert stated_architecture(first.folder) == TINY
    assert stated_architecture(tmp_path / "nowhere") == ""
    with pytest.raises(WeightsError, match=f"are of {TINY}, not of test_resnet"):
        job.train(replace(options, backbone="test_resnet", weights=str(folder)))
