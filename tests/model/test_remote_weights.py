"""Weights by a name of the hub, or by an address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from support.hub import HubHandler, hub_here
from support.runs import TINY
from support.web import Raw, ok, serving_forever
from thawnet import job
from thawnet.core.errors import UsageError, WeightsError
from thawnet.model.names import require_model
from thawnet.model.remote_weights import Address, located
from thawnet.model.weight_files import stated_architecture
from thawnet.model.weights import load_weights
from thawnet.recipe import TrainOptions

NAME = "hf-hub:timm/tiny.in1k"


@pytest.fixture(scope="module")
def packed() -> bytes:
    """Return the random weights of a small network as a file."""
    torch.manual_seed(0)
    return save(timm.create_model(TINY).state_dict())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[HubHandler]]:
    with hub_here(monkeypatch, tmp_path / "hub") as handler:
        yield handler


def config() -> bytes:
    published = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "hf_hub_id": "timm/tiny.in1k"}
    return json.dumps({"architecture": TINY, "pretrained_cfg": published}).encode()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_the_hub_come_once_and_then_from_its_cache(
    hub: type[HubHandler], packed: bytes, file: str
) -> None:
    hub.files |= {"config.json": config(), file: packed, "README.md": b"#", "tf_model.h5": b"#"}
    told: list[str] = []
    weights = load_weights(NAME, TINY, tell=told.append)
    assert (weights.mean, weights.origin) == ((0.1, 0.2, 0.3), "timm/tiny.in1k")
    assert len(told) == 1
    assert told[0].endswith("for timm/tiny.in1k")
    assert not any("README" in asked or "tf_model" in asked for asked in hub.asked)
    hub.asked.clear()
    again = load_weights(NAME, TINY, tell=told.append)
    assert (hub.asked, len(told)) == ([], 1)
    assert again.digest == weights.digest


def test_a_run_starts_from_a_name_of_the_hub_alone(
    hub: type[HubHandler], packed: bytes, options: TrainOptions
) -> None:
    hub.files |= {"config.json": config(), "model.safetensors": packed}
    outcome = job.train(
        TrainOptions(data=options.data, weights=NAME, size=32, epochs=(1, 0), out=options.out)
    )
    assert stated_architecture(outcome.folder) == TINY


@pytest.mark.usefixtures("hub")
def test_a_repository_without_weights_is_one_sentence() -> None:
    with pytest.raises(WeightsError, match=r"'timm/tiny.in1k' holds none of model.safetensors"):
        located(NAME)


@pytest.mark.parametrize(
    "name",
    [
        *("hf-hub:o/n", "hf_hub:o/n", "hf:o/n", "hf://o/n", "https://huggingface.co/o/n"),
        *("https://huggingface.co/o/n/", "https://huggingface.co/o/n/tree/main"),
    ],
)
def test_a_repository_is_known_however_it_is_written(
    hub: type[HubHandler], packed: bytes, name: str
) -> None:
    hub.files["model.safetensors"] = packed
    assert (located(name) / "model.safetensors").read_bytes() == packed
    assert all("o/n" in asked for asked in hub.asked if "/resolve/" in asked)


def test_a_file_behind_an_address_is_fetched_once(packed: bytes) -> None:
    server = Raw(ok(packed))
    with serving_forever(server) as url:
        one = load_weights(f"{url}/a/w.pth", TINY)
        assert load_weights(f"{url}/a/w.pth?download=true", TINY).digest == one.digest
        assert server.asked == ["/a/w.pth"]
        server.answer = [ok(b"another")]
        assert located(f"{url}/b/w.pth").read_bytes() == b"another"
        assert located(f"{url}/a/w.pth").read_bytes() == packed


def test_no_mirror_stands_for_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THAWNET_MIRROR", "https://mirror.invalid")
    assert (
        Address("https://there.invalid/x", "w.pth", None, 9).url == "https://there.invalid/x/w.pth"
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("http://there.invalid/w.pth", "is not https"),
        ("ftp://there.invalid/w.pth", "is not https"),
        ("https://127.0.0.1:9/w.pth", "refused"),
        ("s3://there/w.pth", "give an address that starts with https://, or the file"),
        ("https://", "could not be fetched"),
    ],
)
def test_an_address_that_does_not_answer_is_one_sentence(name: str, told: str) -> None:
    with pytest.raises(WeightsError, match=told) as caught:
        located(name)
    assert "\n" not in str(caught.value)


def test_a_name_of_the_hub_as_a_backbone_is_told_where_it_belongs() -> None:
    with pytest.raises(UsageError, match=f"give it by --weights {NAME}"):
        require_model(NAME)
