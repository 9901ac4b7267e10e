"""CIFAR in every published form: the same images, and nothing hostile or cut gets through."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.published_cifar import COUNTS, Part, files_of, pack, small
from support.shared import CIFAR
from thawnet.core.errors import DataError
from thawnet.data.items import Items
from thawnet.data.sources import cifar
from thawnet.data.sources.open import open_source
from thawnet.image.decode import decode

Publish = Callable[..., Path]
needs_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {CIFAR}")


@pytest.fixture(autouse=True)
def small_counts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both data sets have 50 and 20 images, but in tests with the real ones."""
    if "real" not in request.keywords:
        monkeypatch.setattr(cifar, "COUNTS", COUNTS)


@pytest.fixture
def publish(tmp_path: Path) -> Publish:
    """Return a function that writes a small data set in a form, as archive or unpacked."""

    def write(name: str, form: str, packed: bool = False, **changes: bytes | None) -> Path:
        files = files_of(name, form, *small(name))
        for start, content in changes.items():
            file = next(known for known in files if known.split(".")[0] == start)
            if content is None:
                del files[file]
            else:
                files[file] = content
        folder = tmp_path / "published"
        folder.mkdir()
        if packed:
            return pack(folder / f"{getattr(cifar.LAYOUTS[name], form).stem}.tar.gz", files)
        (folder / "inside").mkdir()
        for file, content in files.items():
            (folder / "inside" / file).write_bytes(content)
        return folder

    return write


def check(items: Items, part: Part) -> None:
    images, labels = part
    assert (items.labels == labels).all()
    assert len(np.unique(items.hashes, axis=0)) == len(images)
    for row, image in enumerate(images):
        pixels = items.read(row)
        assert isinstance(pixels, np.ndarray)
        assert (pixels.dtype, pixels.flags.c_contiguous) == (np.uint8, True)
        assert np.array_equal(pixels, image)


@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_published_form_gives_the_same_images_labels_and_names(
    publish: Publish, name: str, form: str, packed: bool
) -> None:
    parts, classes = small(name)
    lines: list[str] = []
    path = publish(name, form, packed)
    source = open_source(name, path, tell=lines.append)
    assert source.classes == tuple(classes)
    assert source.parts == {"train", "test"}
    assert source.name == name
    assert lines == [f"{name}: from {path}"]
    check(source.open_part("train"), parts["train"])
    check(source.open_part("test"), parts["test"])
    # The folder that holds the archive, or is what it unpacks to, will do as well.
    other = path.parent if packed else path / "inside"
    check(open_source(name, other).open_part("train"), parts["train"])


def test_the_test_part_is_not_read_before_it_is_asked_for(publish: Publish) -> None:
    source = open_source("cifar10", publish("cifar10", "binary", test_batch=b"not a record"))
    assert len(source.open_part("train")) == COUNTS["train"]
    with pytest.raises(DataError, match="is 12 bytes, expected"):
        source.open_part("test")


@needs_cifar
@pytest.mark.slow
@pytest.mark.real
def test_archives_of_the_real_images_equal_the_shards(tmp_path: Path) -> None:
    shards = open_source("cifar100", CIFAR)
    parts = {}
    for part in ("train", "test"):
        items = shards.open_part(part)
        images = [np.asarray(decode(items.read(row))) for row in range(len(items))]  # type: ignore[arg-type]
        parts[part] = (np.stack(images), items.labels)
    for form in ("binary", "python"):
        files = files_of("cifar100", form, parts, list(shards.classes))
        path = pack(tmp_path / f"{form}.tar.gz", files)
        source = open_source("cifar100", path)
        assert source.classes == shards.classes
        for part, (images, labels) in parts.items():
            items = source.open_part(part)
            assert (items.labels == labels).all()
            assert (np.stack([items.read(row) for row in range(len(items))]) == images).all()
        path.unlink()


# --- what is wrong ------------------------------------------------------------------------------


def test_one_changed_byte_in_an_archive_is_noticed(publish: Publish) -> None:
    path = publish("cifar100", "binary", True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is not a whole zip or tar archive .*download"):
        open_source("cifar100", path)


def python_train(**columns: object) -> bytes:
    return pickle.dumps({"data": np.zeros((50, 3072), np.uint8), **columns}, protocol=2)


@pytest.mark.parametrize(
    ("form", "changes", "message"),
    [
        ("binary", {"train": bytes(3074 * 49)}, r"train.bin is 150,626 bytes, expected 153,700"),
        ("binary", {"train": b"\x00\x64" + bytes(3074 * 50 - 2)}, "not all between 0 and 99"),
        ("binary", {"fine_label_names": b"apple\nbear\n"}, "it has 2 classes, cifar100 has 100"),
        ("binary", {"fine_label_names": b"a\n" * 100}, "it has 1 class, cifar100 has 100"),
        ("binary", {"fine_label_names": bytes(2**25)}, "is 33,554,432 bytes, expected at most"),
        ("binary", {"train": None}, "holds no cifar100: expected parquet shards"),
        ("python", {"meta": b"junk"}, "not a whole pickle"),
        ("python", {"meta": pickle.dumps({"label_names": ["a"]})}, "no list 'fine_label_names'"),
        ("python", {"train": pickle.dumps([3])}, "train holds a list, expected a dict"),
        ("python", {"train": pickle.dumps({"data": 3})}, r"no 'data' of 50 x 3072 .*shape is \(\)"),
        ("python", {"train": python_train()}, "no 'fine_labels' of 50 whole numbers"),
        ("python", {"train": python_train(fine_labels=[1] * 49)}, "no 'fine_labels' of 50"),
        ("python", {"train": python_train(fine_labels=[1.5] * 50)}, "no 'fine_labels' of 50"),
        ("python", {"train": python_train(fine_labels=[2**70] * 50)}, "no 'fine_labels' of 50"),
        ("python", {"train": python_train(fine_labels=[100] * 50)}, "not all between 0 and 99"),
    ],
)
def test_a_wrong_size_label_or_name_is_one_sentence(
    publish: Publish, form: str, changes: dict[str, bytes | None], message: str
) -> None:
    path = publish("cifar100", form, **changes)
    with pytest.raises(DataError, match=message):
        open_source("cifar100", path).open_part("train")


def test_a_missing_test_part_is_told_when_it_is_asked_for(publish: Publish) -> None:
    source = open_source("cifar100", publish("cifar100", "binary", test=None))
    with pytest.raises(DataError, match=r"test.bin cannot be read \(No such file"):
        source.open_part("test")


def test_the_other_data_set_is_refused(publish: Publish) -> None:
    path = publish("cifar10", "binary", True)
    for local in (path, path.parent):
        with pytest.raises(
            DataError,
            match=r"holds no cifar100: expected parquet shards .*tar.gz.* own: thawnet train \S+$",
        ):
            open_source("cifar100", local)
    with pytest.raises(DataError, match="no such file or folder"):
        open_source("cifar100", path / "nowhere")


@needs_cifar
def test_shards_of_the_other_data_set_are_refused() -> None:
    with pytest.raises(DataError, match="is not cifar10: it has 100 classes, cifar10 has 10"):
        open_source("cifar10", CIFAR)


class Calls:
    """Pickled, it asks its reader to write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "ran"))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_runs(
    publish: Publish, tmp_path: Path, protocol: int
) -> None:
    mark = tmp_path / "ran"
    path = publish("cifar100", "python", train=pickle.dumps({b"data": Calls(mark)}, protocol))
    with pytest.raises(DataError, match="train is refused: it asks for"):
        open_source("cifar100", path).open_part("train")
    assert not mark.exists()
