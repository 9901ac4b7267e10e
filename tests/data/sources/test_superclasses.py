"""CIFAR-100's superclasses: the published table, in every form in which the data can be opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.shared import CIFAR
from thawnet.data.sources.arrays import digits
from thawnet.data.sources.open import open_source
from thawnet.data.sources.superclasses import CIFAR100, TABLE, with_superclasses


def test_there_are_20_of_five_classes_each() -> None:
    assert len(TABLE) == 20
    assert all(len(names.split()) == 5 for names in TABLE.values())
    assert len(CIFAR100) == 100


@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {CIFAR}")
def test_table_is_what_the_coarse_labels_of_the_real_data_say() -> None:
    import pyarrow.parquet

    shards = sorted(CIFAR.glob("*.parquet"))
    assert len(shards) == 4
    pairs = set()
    for shard in shards:
        schema = pyarrow.parquet.read_schema(shard)
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        fine, coarse = (features[name]["names"] for name in ("fine_label", "coarse_label"))
        rows = pyarrow.parquet.read_table(shard, columns=["fine_label", "coarse_label"])
        numbers = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        pairs |= {(fine[one], coarse[other]) for one, other in numbers}
    assert pairs == set(CIFAR100.items())
    # Opened by its name and as any folder of shards.
    for source in (open_source("cifar100", CIFAR), open_source(str(CIFAR))):
        assert source.superclasses == CIFAR100


def test_folders_of_its_classes_have_them_and_others_have_none(tmp_path: Path) -> None:
    for name in CIFAR100:
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "1.png").touch()
    assert open_source(str(tmp_path / "all")).superclasses == CIFAR100
    (tmp_path / "all" / "extra").mkdir()
    (tmp_path / "all" / "extra" / "1.png").touch()
    assert open_source(str(tmp_path / "all")).superclasses is None
    assert open_source("digits").superclasses is None


def test_class_misspelt_on_the_hub_has_its_published_name() -> None:
    misspelt = tuple("cra" if name == "crab" else name for name in sorted(CIFAR100))
    source = with_superclasses(replace(digits(), classes=misspelt))
    assert source.classes == tuple(sorted(CIFAR100))
    assert source.superclasses == CIFAR100
    other = replace(digits(), classes=("cra", "b"))
    assert with_superclasses(other) is other
