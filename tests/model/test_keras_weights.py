"""Keras's files: the same outputs as Keras's own, and only MobileNetV2's tensors come out."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from thawnet.core.errors import WeightsError
from thawnet.model import keras_file, keras_weights
from thawnet.model.backbone import Network
from thawnet.model.keras_layers import keras_layers
from thawnet.model.weights import fill, load_weights
from thawnet.net.published import MIRROR

NAME = "mobilenetv2_100"
Layers = list[tuple[str, dict[str, np.ndarray]]]  # (layer, {array: values}), in Keras's order


def random_layers() -> Layers:
    """Return MobileNetV2's layers as Keras lays them out, with random weights."""
    rng = np.random.default_rng(0)
    shapes = {expected.keras: expected.arrays for expected in keras_weights._table()}
    return [
        (
            keras,
            {
                f"{keras}/{role}:0": rng.uniform(0.5, 1, shape).astype(np.float32)
                for role, shape in shapes.get(keras, {}).items()
            },
        )
        for keras, _ in keras_layers()
    ]


def write_legacy(path: Path, layers: Layers, whole_model: bool = False, chunk: int = 0) -> Path:
    """Write as Keras 2's save_weights did; chunk: names per attribute, as in a large model."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        names = [name.encode() for name, _ in layers]
        if chunk:
            for number, start in enumerate(range(0, len(names), chunk)):
                root.attrs[f"layer_names{number}"] = names[start : start + chunk]
        else:
            root.attrs["layer_names"] = names
        root.attrs["backend"] = b"tensorflow"
        root.attrs["keras_version"] = b"2.1.6"
        for name, arrays in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = [array.encode() for array in arrays]
            for array, value in arrays.items():
                group.create_dataset(array, data=value)
    return path


def write_keras_3(path: Path, layers: Layers, within: str = "", named: bool = True) -> Path:
    """Write as Keras 3's save_weights does; within: groups of a model that holds this one."""
    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for name, arrays in layers:
            roles = [array.rsplit("/", 1)[1].split(":")[0] for array in arrays]
            kind = {1: "conv2d", 4: "batch_normalization", 0: "re_lu"}[len(roles)]
            kind = "depthwise_conv2d" if roles == ["depthwise_kernel"] else kind
            number = counts[kind] = counts.get(kind, -1) + 1
            group = f"{within}layers/{kind}{f'_{number}' if number else ''}/vars"
            made = file.create_group(group)
            if named:
                made.attrs["name"] = name
            for place, value in enumerate(arrays.values()):
                made.create_dataset(str(place), data=value)
    return path


def in_zip(path: Path) -> Path:
    """Pack weights as a .keras file holds them, next to its other files."""
    packed = path.with_name("model.keras")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.write(path, "model.weights.h5")
    return packed


def read(path: Path) -> dict[str, torch.Tensor]:
    return keras_weights.read_keras(path)


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_model", [True, False])
@pytest.mark.parametrize("chunk", [0, 40])
def test_every_layer_is_filled_from_both_layouts_and_from_chunked_names(
    tmp_path: Path, whole_model: bool, chunk: int
) -> None:
    layers = random_layers()
    path = write_legacy(tmp_path / "w.h5", layers, whole_model, chunk)
    weights = load_weights(str(path), NAME)
    network = Network(NAME, 7, 96, weights.padding, weights.epsilon)
    fill(network, weights, "w.h5")
    arrays = {name: values for _, found in layers for name, values in found.items()}
    state = network.net.state_dict()
    kernel = arrays["block_3_project/kernel:0"]  # (1, 1, in, out)
    assert np.array_equal(state["blocks.2.0.conv_pwl.weight"].numpy(), kernel.transpose(3, 2, 0, 1))
    depthwise = arrays["block_3_depthwise/depthwise_kernel:0"]  # (3, 3, channels, 1)
    assert np.array_equal(
        state["blocks.2.0.conv_dw.weight"].numpy(), depthwise.transpose(2, 3, 0, 1)
    )
    variance = arrays["Conv_1_bn/moving_variance:0"]
    assert np.array_equal(state["bn2.running_var"].numpy(), variance)


def test_names_of_an_older_keras_are_read_in_the_files_order(tmp_path: Path) -> None:
    layers = random_layers()
    older = [
        (
            f"mobl{number}_{name}",
            {f"mobl{number}_{array}": value for array, value in arrays.items()},
        )
        for number, (name, arrays) in enumerate(layers)
    ]
    expected = read(write_legacy(tmp_path / "today.h5", layers))
    got = read(write_legacy(tmp_path / "older.h5", older))
    assert expected.keys() == got.keys()
    assert all(torch.equal(got[key], value) for key, value in expected.items())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("within", ["", "layers/functional/"])
def test_keras_3s_layout_is_read_by_names_or_in_order(
    tmp_path: Path, packed: bool, named: bool, within: str
) -> None:
    layers = random_layers()
    expected = read(write_legacy(tmp_path / "legacy.h5", layers))
    path = write_keras_3(tmp_path / "w.weights.h5", layers, within, named)
    path = in_zip(path) if packed else path
    got = load_weights(str(path.rename(tmp_path / "anything")), NAME).tensors
    assert expected.keys() == got.keys()
    assert all(torch.equal(got[key], value) for key, value in expected.items())


def test_layers_of_a_model_within_a_legacy_model_are_found_by_name(tmp_path: Path) -> None:
    """As Sequential([MobileNetV2(...), Dense(5)]) is saved, thawed from its middle."""
    layers = random_layers()
    expected = read(write_legacy(tmp_path / "flat.h5", layers))
    thawed_first = layers[80:] + layers[:80]
    arrays = {name: value for _, found in thawed_first for name, value in found.items()}
    head = {"dense/kernel:0": np.zeros((1280, 5), np.float32)}
    nested = [("rescaling", {}), ("mobilenetv2_1.00_96", arrays), ("dense", head)]
    got = read(write_legacy(tmp_path / "nested.h5", nested, whole_model=True))
    assert all(torch.equal(got[key], value) for key, value in expected.items())


def test_a_head_after_the_trunk_is_left_out(tmp_path: Path) -> None:
    layers = random_layers()
    trunk = read(write_legacy(tmp_path / "trunk.h5", layers))
    head = {"predictions/kernel:0": np.zeros((1280, 9), np.float32)}
    assert read(write_legacy(tmp_path / "all.h5", [*layers, ("predictions", head)])).keys() == (
        trunk.keys()
    )


def test_it_asks_for_keras_padding_epsilon_and_normalisation(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "mobilenet_v2_x_1.0_160_no_top.h5", random_layers())
    weights = load_weights(str(path), NAME)
    assert (weights.padding, weights.epsilon) == ("same", 1e-3)
    assert (weights.mean, weights.std) == ((0.5,) * 3, (0.5,) * 3)
    assert weights.size == 160


@pytest.mark.parametrize(
    ("asked", "file"), [(96, 96), (32, 96), (112, 128), (150, 160), (224, 224), (512, 224)]
)
def test_the_published_file_is_that_of_the_nearest_size(asked: int, file: int) -> None:
    assert keras_weights.published(asked).name.endswith(f"_1.0_{file}_no_top.h5")
    assert keras_weights.size_in_name(keras_weights.published(asked).path) == file


def test_keras_by_name_downloads_once_and_a_bad_file_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Path], str]
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv(MIRROR, serve(folder))
    path = folder / keras_weights.published(96).name
    path.write_bytes(b"not HDF5")
    with pytest.raises(WeightsError, match="not a readable file of Keras"):
        load_weights("keras", NAME, 96)
    write_legacy(path, random_layers())
    weights = load_weights("keras", NAME, 96)
    assert (weights.size, weights.origin, weights.licence) == (96, path.name, "Apache-2.0")
    path.unlink()
    assert load_weights("keras", NAME, 96).digest == weights.digest


def test_keras_weights_for_another_backbone_are_refused() -> None:
    with pytest.raises(WeightsError, match="read for backbone 'mobilenetv2_100' only"):
        load_weights("keras", "resnet18", 96)


# --- what is refused ----------------------------------------------------------------------------


def changed(layer: str, **arrays: np.ndarray | None) -> Layers:
    layers = dict(random_layers())
    for role, value in arrays.items():
        if value is None:
            del layers[layer][f"{layer}/{role}:0"]
        else:
            layers[layer][f"{layer}/{role}:0"] = value
    return list(layers.items())


def without_one() -> Layers:
    layers = [(name, arrays) for name, arrays in random_layers() if name != "block_4_expand"]
    return [*layers, ("predictions", {"predictions/kernel:0": np.zeros((1280, 9), np.float32)})]


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        (
            lambda: changed("Conv1", kernel=np.zeros((3, 3, 3, 16), np.float32)),
            r"Conv1/kernel is \(3, 3, 3, 16\), expected \(3, 3, 3, 32\)",
        ),
        (
            lambda: changed("bn_Conv1", gamma=None),
            r"'bn_Conv1' holds beta, .*; expected gamma, beta",
        ),
        (
            lambda: changed("Conv1", kernel=np.zeros((3, 3, 3, 32), np.int32)),
            "an array of floats is not one",
        ),
        (
            lambda: random_layers()[:80],
            r"MobileNetV2 is read; this is another \(\d+ layers, expected 104\)",
        ),
        (
            without_one,
            "'block_4_expand_BN' stands where Keras's MobileNetV2 has 'block_4_expand'",
        ),
    ],
)
def test_a_layer_that_does_not_fit_is_named(
    tmp_path: Path, layers: Callable[[], Layers], told: str
) -> None:
    path = write_legacy(tmp_path / "w.h5", layers())
    with pytest.raises(WeightsError, match=told) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89HDF\r\n\x1a\n" + bytes(300)])
def test_what_is_not_hdf5_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable file of Keras") as caught:
        load_weights(str(path), NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_cut_file_is_one_sentence(tmp_path: Path, share: float) -> None:
    path = write_legacy(tmp_path / "w.h5", random_layers())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match="not a readable file of Keras"):
        read(path)


@pytest.mark.parametrize("kind", ["soft", "external", "elsewhere"])
def test_links_and_numbers_kept_in_other_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = write_legacy(tmp_path / "w.h5", random_layers())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.create_dataset("kernel", data=np.zeros((3, 3, 3, 32), np.float32))
    with h5py.File(path, "r+") as file:
        del file["Conv1/Conv1/kernel:0"]
        group = file["Conv1/Conv1"]
        if kind == "soft":
            group["kernel:0"] = h5py.SoftLink("/bn_Conv1/bn_Conv1/gamma:0")
        elif kind == "external":
            group["kernel:0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "kernel")
        else:
            group.create_dataset(
                "kernel:0",
                (3, 3, 3, 32),
                np.float32,
                external=[(str(tmp_path / "other.h5"), 0, 3456)],
            )
    with pytest.raises(WeightsError, match=r"no 'Conv1/Conv1/kernel:0'|in another file"):
        read(path)


def test_a_file_that_is_none_of_keras_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames/0", data=np.zeros(3))
    with pytest.raises(WeightsError, match=r"the file has \['frames'\], expected those of .keras"):
        read(path)


def test_a_network_of_another_kind_in_keras_3s_layout_says_what_it_lacks(tmp_path: Path) -> None:
    path = write_keras_3(tmp_path / "w.weights.h5", random_layers()[:60])
    with pytest.raises(
        WeightsError, match=r"MobileNetV2 is read; this is another \(13 conv2d, expected 35\)"
    ):
        read(path)


def test_a_zip_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = in_zip(write_keras_3(tmp_path / "w.weights.h5", random_layers()))
    monkeypatch.setattr(keras_file, "LARGEST", 1000)
    with pytest.raises(WeightsError, match=r"not a readable file of Keras \(it unpacks to"):
        load_weights(str(path), NAME)


# --- Keras itself -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Any:
    """Return Keras's MobileNetV2 without its top, at 96 px, batch-norms with statistics."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(5)
    made = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
    rng = np.random.default_rng(5)
    for layer in made.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, shape),
                    rng.normal(0, 0.2, shape),
                    rng.normal(0, 0.2, shape),
                    rng.uniform(0.5, 1.5, shape),
                ]
            )
    return made


def arrays_of(layer: Any) -> dict[str, np.ndarray]:
    """Return a Keras layer's arrays in the names of Keras 2."""
    prefix = "depthwise_" if "depthwise" in layer.name and not layer.name.endswith("_BN") else ""
    return {
        f"{layer.name}/{prefix}{weight.name}:0": weight.value.detach().numpy()
        for weight in layer.weights
    }


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Keras's own warnings are not ours to mend
@pytest.mark.parametrize("ending", ["h5", "keras", "weights.h5"])
@pytest.mark.parametrize("nested", [False, True])
def test_outputs_equal_those_of_keras(
    model: Any, nested: bool, ending: str, tmp_path: Path
) -> None:
    import keras

    whole = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 127.5, -1),
            model,
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(5),
        ]
    )
    whole.build((None, 96, 96, 3))
    path = tmp_path / f"model.{ending}"
    saved = whole if nested else model
    (saved.save_weights if ending == "weights.h5" else saved.save)(path)
    require_outputs_of(model, path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_outputs_equal_those_of_keras_with_weights_in_the_names_of_keras_2(
    model: Any, tmp_path: Path
) -> None:
    layers = [(layer.name, arrays_of(layer)) for layer in model.layers]
    require_outputs_of(model, write_legacy(tmp_path / "w.h5", layers, chunk=40))


def require_outputs_of(model: Any, path: Path) -> None:
    """Require that the network filled from a file computes what Keras's own does."""
    images = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype(np.float32)
    expected = model.predict(images, verbose=0)  # (2, 3, 3, 1280)
    weights = load_weights(str(path), NAME)
    network = Network(NAME, 5, 96, weights.padding, weights.epsilon).eval()
    fill(network, weights, "keras")
    features = network.part(0, network.stages.index("global_pool"))
    with torch.no_grad():
        got = features(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.01
    print(f"largest difference {np.abs(got - expected).max():.2e} of {np.abs(expected).max():.2f}")
    assert np.abs(got - expected).max() < 1e-4
