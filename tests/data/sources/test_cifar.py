"""CIFAR in every published form: the same images, and nothing hostile or cut gets through."""

from __future__ import annotations

import dataclasses
import gzip
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.published_cifar import COUNTS, Part, files_of, pack, python2_pickle, small
from support.shared import CIFAR
from thawnet.core.errors import DataError
from thawnet.data.items import Items
from thawnet.data.sources import cifar, members
from thawnet.data.sources.open import open_source
from thawnet.data.sources.pickles import PickleRefusedError, read_pickle
from thawnet.data.sources.superclasses import CIFAR100
from thawnet.image.decode import decode

needs_cifar = pytest.mark.skipif(not CIFAR.is_dir(), reason=f"needs {CIFAR}")
NAMES = pytest.mark.parametrize("name", ["cifar100", "cifar10"])


@pytest.fixture(autouse=True)
def small_counts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both data sets have 50 and 20 images, but in tests with the real ones."""
    if "real" not in request.keywords:
        for name, layout in cifar.LAYOUTS.items():
            changed = dataclasses.replace(layout, counts=COUNTS)
            monkeypatch.setitem(cifar.LAYOUTS, name, changed)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small data set in a form, as archive or unpacked."""

    def write(name: str, form: str, packed: bool, **changes: bytes | None) -> Path:
        layout = cifar.LAYOUTS[name]
        kind = layout.binary if form == "binary" else layout.python
        files = files_of(name, form, *small(name))
        for file, content in changes.items():
            file = next(known for known in files if known.split(".")[0] == file)
            if content is None:
                del files[file]
            else:
                files[file] = content
        folder = tmp_path / "published"
        folder.mkdir()
        if packed:
            return pack(folder / f"{kind.stem}.tar.gz", kind.folder, files)
        (folder / kind.folder).mkdir()
        for file, content in files.items():
            (folder / kind.folder / file).write_bytes(content)
        return folder

    return write


def check(items: Items, part: Part) -> None:
    images, labels = part
    assert (items.labels == labels).all()
    assert all(np.array_equal(items.read(row), images[row]) for row in range(len(images)))


# --- every form ---------------------------------------------------------------------------------


@NAMES
@pytest.mark.parametrize("form", ["binary", "python"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_published_form_gives_the_same_images_labels_and_names(
    publish: Callable[..., Path], name: str, form: str, packed: bool
) -> None:
    parts, classes = small(name)
    told: list[str] = []
    place = publish(name, form, packed)
    source = open_source(name, place, tell=told.append)
    assert source.classes == tuple(classes)
    assert source.parts == {"train", "test"}
    assert source.name == name
    assert len(told) == 1
    check(source.open_part("train"), parts["train"])
    check(source.open_part("test"), parts["test"])
    # The folder that holds the archive, or is what it unpacks to, will do as well.
    other = place.parent if packed else next(place.iterdir())
    check(open_source(name, other).open_part("train"), parts["train"])


@pytest.mark.parametrize("form", ["binary", "python"])
def test_published_names_have_their_superclasses(publish: Callable[..., Path], form: str) -> None:
    names = sorted(CIFAR100)
    text = "\n".join(names).encode()
    pickled = python2_pickle({"fine_label_names": names})
    changes = {"fine_label_names": text} if form == "binary" else {"meta": pickled}
    source = open_source("cifar100", publish("cifar100", form, True, **changes))
    assert source.superclasses == CIFAR100


def test_an_image_is_32_by_32_rgb_bytes_whose_duplicates_share_a_hash(
    publish: Callable[..., Path],
) -> None:
    items = open_source("cifar10", publish("cifar10", "binary", True)).open_part("train")
    image = items.read(7)
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((32, 32, 3), np.uint8, True)
    assert len(np.unique(items.hashes, axis=0)) == COUNTS["train"]


@NAMES
def test_the_test_part_is_not_read_before_it_is_asked_for(
    publish: Callable[..., Path], name: str
) -> None:
    broken = {"cifar100": "test", "cifar10": "test_batch"}[name]
    source = open_source(name, publish(name, "binary", True, **{broken: b"not a record"}))
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
        kind = getattr(cifar.LAYOUTS["cifar100"], form)
        files = files_of("cifar100", form, parts, list(shards.classes))
        path = pack(tmp_path / f"{kind.stem}.tar.gz", kind.folder, files)
        source = open_source("cifar100", path)
        assert source.classes == shards.classes
        for part, (images, labels) in parts.items():
            items = source.open_part(part)
            assert (items.labels == labels).all()
            assert (np.stack([items.read(row) for row in range(len(items))]) == images).all()
        path.unlink()


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["binary", "python"])
def test_a_cut_archive_is_one_sentence(
    publish: Callable[..., Path], form: str, share: float
) -> None:
    path = publish("cifar100", form, True)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    def read_all() -> None:
        source = open_source("cifar100", path)
        source.open_part("train")
        source.open_part("test")

    with pytest.raises(DataError, match=r"(cut or damaged|lacks).*download it again") as caught:
        read_all()
    assert "\n" not in str(caught.value)


def test_one_changed_byte_in_an_archive_is_noticed(publish: Callable[..., Path]) -> None:
    path = publish("cifar100", "binary", True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="cut or damaged"):
        open_source("cifar100", path)


def test_what_is_not_an_archive_is_one_sentence(tmp_path: Path) -> None:
    for content in (b"", b"<html>404</html>", b"\x1f\x8b" + bytes(40), b"x" * 2000):
        path = tmp_path / "cifar-10-binary.tar.gz"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cut or damaged|lacks"):
            open_source("cifar10", path)


@pytest.mark.parametrize(
    ("form", "changes", "told"),
    [
        ("binary", {"train": bytes(3074 * 49)}, r"train.bin is 150,626 bytes, expected 153,700"),
        ("binary", {"train": b"\x00\x64" + bytes(3074 * 50 - 2)}, "not all between 0 and 99"),
        ("binary", {"fine_label_names": b"apple\nbear\n"}, "names 2 classes, expected 100"),
        ("binary", {"fine_label_names": b"a\n" * 100}, "names 1 class, expected 100"),
        ("binary", {"test": None, "train": None}, "lacks 'train.bin'"),
        ("python", {"meta": b"junk"}, "not a whole pickle"),
        ("python", {"meta": pickle.dumps({"label_names": ["a"]})}, "no list 'fine_label_names'"),
        ("python", {"train": pickle.dumps({"data": 3})}, r"no 'data' of 50 x 3072 .*found int"),
        (
            "python",
            {
                "train": python2_pickle(
                    {"data": np.zeros((50, 3072), np.uint8), "fine_labels": [100] * 50}
                )
            },
            "no 'fine_labels' of 50 numbers between 0 and 99",
        ),
    ],
)
def test_a_wrong_size_label_or_name_is_one_sentence(
    publish: Callable[..., Path], form: str, changes: dict[str, bytes | None], told: str
) -> None:
    path = publish("cifar100", form, True, **changes)
    with pytest.raises(DataError, match=told):
        open_source("cifar100", path).open_part("train")


def test_the_other_data_set_is_refused(publish: Callable[..., Path]) -> None:
    path = publish("cifar10", "binary", True)
    with pytest.raises(
        DataError,
        match=r"holds no cifar100: expected parquet shards .*tar.gz.* own: thawnet train \S+$",
    ):
        open_source("cifar100", path.parent)
    with pytest.raises(DataError, match="no such file or folder"):
        open_source("cifar100", path / "nowhere")


@needs_cifar
def test_shards_of_the_other_data_set_are_refused() -> None:
    with pytest.raises(DataError, match="is not cifar10: it has 100 classes, cifar10 has 10"):
        open_source("cifar10", CIFAR)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "LARGEST_ARCHIVE", 1 << 20)
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, "cifar-10-batches-bin", {"zeros.bin": bytes(5 << 20)})
    with pytest.raises(DataError, match="unpacks to over 1,048,576 bytes"):
        open_source("cifar10", path)


def test_links_out_of_the_archive_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/batches.meta.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"lacks 'batches.meta.txt'"):
        open_source("cifar10", path)


def test_an_archive_unpacked_to_a_tar_by_the_browser_is_read(publish: Callable[..., Path]) -> None:
    path = publish("cifar10", "binary", True)
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert len(open_source("cifar10", plain.parent).open_part("train")) == COUNTS["train"]


# --- pickles ------------------------------------------------------------------------------------


class Calls:
    """Pickled, it asks its reader to write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "ran"))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_runs(
    publish: Callable[..., Path], tmp_path: Path, protocol: int
) -> None:
    mark = tmp_path / "ran"
    hostile = pickle.dumps({b"data": Calls(mark)}, protocol=protocol)
    path = publish("cifar100", "python", True, train=hostile)
    with pytest.raises(DataError, match=r"'train' is refused|train is refused: it asks for"):
        open_source("cifar100", path).open_part("train")
    assert not mark.exists()


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\n"


@pytest.mark.parametrize(
    "hostile",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"\x80\x02" + DTYPE + b"U\x01O\x85R.",  # objects in an array
        b"\x80\x02" + DTYPE + b"U\x02u1\x85R.",  # a dtype by itself
        b"\x80\x02" + DTYPE + b"}(U\x01aK\x01ub.",  # BUILD on a stand-in
        b"\x80\x02" + ARRAY + b")\x81.",  # NEWOBJ on one
        b"\x80\x02" + ARRAY + b")R.",  # an array without content
        b"\x80\x02" + ARRAY + b")R(K\x01K\x05\x85" + DTYPE + b"U\x02u1\x85R\x89U\x01xtb.",
        b"\x80\x02](](K\x01ee.",  # a list in a list
        b"\x80\x02U\x05ab.",
        b"P1\n.",
        b"\x82\x01.",
        b".",
        b"",
    ],
)
def test_only_numbers_strings_lists_and_byte_arrays_come_out_of_a_pickle(hostile: bytes) -> None:
    with pytest.raises(PickleRefusedError):
        read_pickle(hostile)


def test_arrays_that_python_3_writes_are_read() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for value in (array, np.asfortranarray(array)):
        read = read_pickle(pickle.dumps({"data": value}, protocol=2))["data"]
        assert np.array_equal(read, array)
