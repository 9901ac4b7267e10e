"""A data set named on the Hugging Face hub: its own files, or those the hub makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.hub import HubHandler, hub_here, shard
from thawnet.core.errors import DataError
from thawnet.data.reading import Reading
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
    with pytest.raises(DataError, match="it has no configuration 'birds', only cats, dogs"):
        open_source("hf:u/pets:birds")
    source = open_source("hf:u/pets:dogs")
    assert len(source.open_part("train")) == 10
    fetched = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert len(fetched) == 1


def test_a_data_set_without_images_in_parquet_is_one_sentence(hub: type[HubHandler]) -> None:
    hub.files["labels.csv"] = b"a,b"
    with pytest.raises(
        DataError,
        match=r"'hf:u/pets': it holds no parquet files, and the hub has made none of it$",
    ):
        open_source("hf:u/pets")


@pytest.mark.parametrize(
    ("files", "config", "images"),
    [
        (("train/0000.parquet", "test/0000.parquet"), "", {"train": 10, "test": 10}),
        (("data/train-00000-of-00001.parquet", "extra/x.parquet"), ":default", {"train": 10}),
        (("data/train-00000-of-00001.parquet", "extra/x.parquet"), ":extra", {"train": 10}),
        (("data/a/train-00000-of-00001.parquet", "data/b/train.parquet"), ":a", {"train": 10}),
        (("x/y/train-00000-of-00001.parquet", "x/z/train.parquet"), ":x/y", {"train": 10}),
    ],
)
def test_layouts_of_parts_and_configurations(
    files: tuple[str, ...], config: str, images: dict[str, int], hub: type[HubHandler]
) -> None:
    hub.files |= {name: shard(10) for name in files}
    source = open_source(f"hf:u/pets{config}")
    assert {part: len(source.open_part(part)) for part in source.parts} == images


def test_only_the_beginning_of_large_data_is_said_to_be_that(hub: type[HubHandler]) -> None:
    hub.files["images.zip"] = b"large"
    hub.converted["default/partial-train/0000.parquet"] = shard(20)
    (note,) = open_source("hf:u/pets").notes
    assert note.startswith("this is only the beginning of the data set")


def test_a_name_that_is_not_there_says_to_check_it_or_log_in(hub: type[HubHandler]) -> None:
    hub.missing = True
    with pytest.raises(DataError, match="'hf:u/pest': there is none of that name, or it needs"):
        open_source("hf:u/pest")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"data_dir": Path("here")}, "--data-dir 'here': it is for cifar10 and cifar100"),
        ({"asked": Reading(images=Path("here"))}, "--images 'here': it is for a CSV"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(
    words: dict[str, Any], message: str, hub: type[HubHandler]
) -> None:
    hub.files["data/train-00000-of-00001.parquet"] = shard(10)
    with pytest.raises(DataError, match=message):
        open_source("hf:u/pets", **words)
