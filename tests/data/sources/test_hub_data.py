"""A data set named on the Hugging Face hub: its own files, or those the hub makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hub import HubHandler, hub_here, shard
from thawnet.core.errors import DataError
from thawnet.data.sources.open import open_source


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[HubHandler]]:
    """Serve an empty hub on this machine."""
    with hub_here(monkeypatch, tmp_path / "hub") as handler:
        yield handler


@pytest.mark.parametrize(
    "name",
    ["hf:u/pets", "hf://datasets/u/pets", "https://huggingface.co/datasets/u/pets", "hf:pets"],
)
def test_data_set_is_fetched_once_and_then_needs_no_network(
    name: str, hub: type[HubHandler]
) -> None:
    hub.files |= {
        "README.md": b"# Pets",
        "data/train-00000-of-00001.parquet": shard(20),
        "data/test-00000-of-00001.parquet": shard(10),
    }
    said: list[str] = []
    for _ in range(2):
        source = open_source(name, tell=said.append)
        assert (source.name, source.parts) == ("pets", {"train", "test"})
        assert len(source.open_part("train")) == 20
        assert source.classes[0] == "class 0"
    assert said == [
        f"fetching {name.split(':')[1].split('datasets/')[-1]} from {hub.address}: 2 files"
    ]
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert len(fetched) == 2
    assert not any("README" in line for line in fetched)


def test_what_the_hub_made_of_other_forms_is_read(hub: type[HubHandler]) -> None:
    hub.files["images/cat/1.jpg"] = b"a photo"
    hub.converted |= {
        "default/train/0000.parquet": shard(20),
        "default/validation/0000.parquet": shard(10),
    }
    source = open_source("hf:u/pets")
    assert source.parts == {"train", "val"}
    assert len(source.open_part("val")) == 10


def test_one_of_several_configurations_is_chosen_never_guessed(hub: type[HubHandler]) -> None:
    hub.files |= {f"{name}/train-00000-of-00001.parquet": shard(10) for name in ("dogs", "cats")}
    with pytest.raises(DataError, match="several configurations, cats, dogs: add one, as in :cats"):
        open_source("hf:u/pets")
    with pytest.raises(DataError, match="it has no configuration 'birds'; there are cats, dogs"):
        open_source("hf:u/pets:birds")
    source = open_source("hf:u/pets:dogs")
    assert len(source.open_part("train")) == 10
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert len(fetched) == 1


def test_a_data_set_without_images_in_parquet_is_one_sentence(hub: type[HubHandler]) -> None:
    hub.files["labels.csv"] = b"a,b"
    with pytest.raises(
        DataError,
        match=rf"'hf:u/pets' could not be fetched from {hub.address}: it holds no parquet files, "
        r"and the hub has made none of it\. Without that network, give a folder",
    ):
        open_source("hf:u/pets")
