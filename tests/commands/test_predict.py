"""The command `predict`: a line per image in its place, and shares that add up to the whole."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import thawnet
from support.commands import called
from support.photos import draw
from support.runs import TINY
from support.systems import POSIX
from thawnet.commands import predict
from thawnet.commands.predict import Shard, find_shard
from thawnet.core.errors import UsageError

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without what a launcher of the tests themselves may have set."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(photos: Callable[..., Path]) -> Path:
    """Return 24 photos, and one that is broken in their midst."""
    path = photos({"a": 12, "b": 12})
    (path / "a" / "005.png").write_bytes(b"broken")
    return path


@pytest.fixture
def call(bundle: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a function that calls `thawnet predict` with the bundle; see support.commands."""
    return lambda *words: called(capfd, "predict", *words, "--model", bundle)


def test_broken_image_is_reported_in_its_place_and_the_rest_is_done(
    folder: Path, bundle: Path, call: Call
) -> None:
    status, out, err = call(folder, "--json", "--top-k", "2")
    assert status == 1
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["image"] for row in rows] == sorted(map(str, folder.rglob("*.png")))
    error = "not an image in a known format"
    assert rows.pop(5) == {"image": str(folder / "a" / "005.png"), "error": error}
    predictions = thawnet.load(bundle).predict([row["image"] for row in rows], 2)
    for row, prediction in zip(rows, predictions, strict=True):
        assert [pair["class"] for pair in row["predictions"]] == list(prediction.classes)
        shares = [pair["probability"] for pair in row["predictions"]]
        assert shares == pytest.approx(prediction.probabilities, abs=1e-5)
    assert err.startswith(f"model {bundle}: {TINY}, 3 classes, 48 px\n")
    assert err.splitlines()[-1].startswith("thawnet: 1 of 24 images could not be read")


def test_table_has_a_line_per_image(folder: Path, call: Call) -> None:
    draw(0, 0).save(folder / "b" / "new\nline \x1b[31m.png")
    status, out, _ = call(folder / "b", folder / "none.png")
    assert status == 1
    lines = out.splitlines()
    assert len(lines) == 14
    assert lines[-1] == f"{folder / 'none.png'}  cannot be read: no such file"
    assert lines[12].startswith(str(folder / "b") + r"/new\nline \x1b[31m.png  ")
    shares = [float(part.split()[-2]) for part in lines[0].split(", ")]
    assert sum(shares) == pytest.approx(100, abs=0.02)


def test_csv_has_a_row_per_class_named(folder: Path, call: Call) -> None:
    odd = folder / "a" / 'comma, "quote".png'
    draw(0, 0).save(odd)
    status, out, _ = call(odd, "bad\udcff.png", "--csv", "--top-k", 2)
    assert status == 1
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["image"], row["rank"]) for row in rows] == [
        *((str(odd), "1"), (str(odd), "2")),
        (r"bad\udcff.png", ""),
    ]
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"])
    assert rows[2]["error"] == "no such file"


@pytest.mark.parametrize(
    ("form", "marks"),
    [
        ("--top-k=5", ("  (unlike the training data)\n", " %\n", " %\n")),
        ("--json", ('"unfamiliar": true}\n', '"unfamiliar": false}\n', '"unfamiliar": null}\n')),
        ("--csv", (",true,\n", ",false,\n", ",,\n")),
    ],
)
def test_every_form_tells_what_is_unlike_the_training_data(
    bundle: Path,
    colours: Path,
    capfd: pytest.CaptureFixture[str],
    form: str,
    marks: tuple[str, ...],
) -> None:
    Image.new("RGB", (40, 40), "white").save("strange.png")
    Image.new("RGB", (40, 40), "red").save("usual.png")
    calls = (("strange.png", colours), ("usual.png", colours), ("usual.png", bundle))
    for (image, model), mark in zip(calls, marks, strict=True):
        assert called(capfd, "predict", image, "--model", model, form)[1].endswith(mark)


def test_list_comes_from_stdin_and_results_go_through_a_pipe(folder: Path, bundle: Path) -> None:
    names = sorted(map(str, folder.rglob("*.png")))
    command = [sys.executable, "-m", "thawnet", "predict", "-", "--model", str(bundle)]
    listed = "".join(f"{name}\n" for name in names).encode()
    done = subprocess.run(command, input=listed, capture_output=True, check=False)
    assert done.returncode == 1
    assert [line.split(b"  ")[0].decode() for line in done.stdout.splitlines()] == names
    # A reader that has enough, as `head`, is no mistake: no traceback, the pipe's own status.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, input=listed, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert b"Error" not in done.stderr


def test_a_list_of_names_ended_by_nuls_comes_from_stdin(folder: Path, bundle: Path) -> None:
    name = folder / "b" / "a\nb.png"
    (folder / "b" / "000.png").rename(name)
    command = [sys.executable, "-m", "thawnet", "predict", "-", "--json", "--model", str(bundle)]
    found = subprocess.run(["find", str(name.parent), "-print0"], capture_output=True, check=True)
    listed = found.stdout.split(b"\0", 1)[1]  # without the folder itself
    done = subprocess.run(command, input=listed, capture_output=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["image"] for row in rows} == set(map(str, name.parent.iterdir()))


@POSIX
def test_pipes_that_are_named_are_read_and_those_in_folders_are_not(
    folder: Path, call: Call
) -> None:
    photo = folder / "b" / "000.png"
    os.mkfifo("named")
    os.mkfifo(folder / "b" / "found.png")
    writer = subprocess.Popen(f"sleep 0.2; cat {photo} > named", shell=True)
    reader, end = os.pipe()  # as a shell's <(...)
    os.write(end, photo.read_bytes())
    os.close(end)
    status, out, _ = call("named", f"/dev/fd/{reader}", photo, folder / "b", "--json")
    os.close(reader)
    assert writer.wait() == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["predictions"] == rows[1]["predictions"] == rows[2]["predictions"]
    assert (status, rows[-1]) == (1, {"image": f"{folder}/b/found.png", "error": "not a file"})


@POSIX
def test_pipe_that_is_silent_or_endless_is_a_broken_image(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thawnet.image.files.PIPE_SECONDS", 1)
    monkeypatch.setattr("thawnet.image.files.MAX_FILE_BYTES", 2**22)
    os.mkfifo("silent")
    os.mkfifo("endless")
    writer = subprocess.Popen("cat /dev/zero > endless", shell=True, stderr=subprocess.DEVNULL)
    status, out, _ = call("silent", "endless")
    writer.wait(10)
    assert status == 1
    assert "silent  cannot be read: nothing came out of the pipe for 1 s" in out
    assert "endless  cannot be read: the pipe holds more; at most 4 MB are read" in out


def test_a_name_that_a_spreadsheet_would_run_is_text_in_csv(call: Call) -> None:
    draw(0, 0).save("=1+1.png")
    _, out, _ = call("=1+1.png", "--csv", "--top-k", "1")
    assert [row["image"] for row in csv.DictReader(io.StringIO(out))] == ["'=1+1.png"]


def test_results_go_to_stdout_also_while_a_bar_is_shown(folder: Path, bundle: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs pseudo terminals")
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "thawnet", "predict", str(folder / "b"), "--json"]
    job = subprocess.Popen(
        [*command, "--model", str(bundle)], stdout=subprocess.PIPE, stderr=slave, text=True
    )
    os.close(slave)
    out, _ = job.communicate(timeout=60)
    os.close(master)
    assert job.returncode == 0
    assert len(out.splitlines()) == 12


# --- shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_shares_are_the_whole_and_none_twice(folder: Path, call: Call, count: int) -> None:
    _, whole, _ = call(folder, "--json")
    shares: list[str] = []
    for number in range(1, count + 1):
        status, out, err = call(folder, "--json", "--shard", f"{number}/{count}")
        share = out.splitlines()
        assert abs(len(share) - 24 / count) < 1
        assert status == ("not an image" in out)
        assert f"share {number} of {count} (--shard): {len(share):,} of 24 images" in err
        shares += share
    assert sorted(shares) == sorted(whole.splitlines())


@pytest.mark.parametrize(
    "names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")], ids=["torchrun", "srun"]
)
def test_launchers_share_out_by_their_variables_and_the_flag_wins(names: tuple[str, str]) -> None:
    variables = {names[0]: "2", names[1]: "4"}
    assert find_shard(None, variables) == Shard(3, 4, ", ".join(names))
    assert find_shard("1/2", variables) == Shard(1, 2, "--shard")
    assert find_shard(None, {names[0]: "0", names[1]: "1"}) is None
    assert find_shard(None, {names[1]: "4"}) is None  # a shell of the job, no process of a launch
    assert find_shard(None, {}) is None
    for wrong in ("4", "-1", "x", "", "1.0"):
        with pytest.raises(UsageError, match=f"{names[0]}"):
            find_shard(None, {**variables, names[0]: wrong})
    with pytest.raises(UsageError, match=f"{names[1]}='many' in the environment"):
        find_shard(None, {**variables, names[1]: "many"})


def test_out_appears_complete_with_the_share_in_its_name(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (folder, "--csv", "--out", "made/all.csv")
    status, out, err = call(*words)
    assert (status, out) == (1, "")
    assert "\nresults made/all.csv\n" in err
    whole = Path("made/all.csv").read_text().splitlines()
    monkeypatch.setenv("WORLD_SIZE", "10")
    for rank in range(10):
        monkeypatch.setenv("RANK", str(rank))
        call(*words)
    parts = sorted(Path("made").glob("all-*"))
    assert [part.name for part in parts] == [f"all-{n:02d}-of-10.csv" for n in range(1, 11)]
    read = [part.read_text().splitlines() for part in parts]
    assert {lines[0] for lines in read} == {whole[0]} == {",".join(predict.COLUMNS)}
    assert sorted(row for lines in read for row in lines[1:]) == sorted(whole[1:])


def test_stopped_job_keeps_what_it_did_beside_the_file(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predict._json
    seen: list[str] = []

    def stop(name: str, prediction: Any) -> str:
        seen.append(name)
        if len(seen) == 10:
            raise KeyboardInterrupt
        return plain(name, prediction)

    monkeypatch.setattr(predict, "_json", stop)
    status, _, err = call(folder, "--json", "--out", "made/all.jsonl")
    assert status == 130
    part = Path("made/all.jsonl.part")
    assert err.endswith(f"results until here {part}; its last line may be cut\nthawnet: stopped\n")
    assert list(Path("made").iterdir()) == [part]
    done = [json.loads(line)["image"] for line in part.read_text().splitlines()]
    assert done == sorted(map(str, folder.rglob("*.png")))[:9]


def test_threads_are_divided_among_the_processes_of_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("thawnet.commands.predict.available_cores", lambda: 8)
    options = predict.PredictOptions(("x",))
    assert predict._threads(options, {}) == 8
    assert predict._threads(options, {"LOCAL_WORLD_SIZE": "2"}) == 4
    assert predict._threads(options, {"LOCAL_WORLD_SIZE": "16"}) == 1
    chosen = predict.PredictOptions(("x",), workers=3)
    assert predict._threads(chosen, {"LOCAL_WORLD_SIZE": "2"}) == 3


def test_an_address_is_fetched_where_that_is_allowed(
    folder: Path, serve: Callable[[Path], str], call: Call
) -> None:
    photo = folder / "a" / "000.png"
    address = serve(photo.parent)
    words = (f"{address}/000.png", f"{address}/none.png", photo, "--allow-url", "--json")
    status, out, _ = call(*words)
    fetched, missing, own = map(json.loads, out.splitlines())
    assert status == 1
    assert fetched["predictions"] == own["predictions"]
    assert missing["error"].startswith("the server answered 404")


# --- wrong calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "no images: give files"),
        (("https://a.org/?b",), 2, "'https://a.org/?b' is an address; nothing is fetched without"),
        (("x.png", "--model", "nowhere"), 1, "'nowhere': no such folder; give a finished run"),
        (("x.png", "--model", "."), 1, "'.': holds no bundle; give a finished run"),
        (
            ("x.png", "--model", "stopped"),
            1,
            "'stopped' is not finished; wait for it, or continue it: thawnet train --resume "
            "stopped",
        ),
        (("x.png", "--json", "--csv"), 2, "--json and --csv: choose one"),
        (("x.png", "--top-k", "0"), 2, "--top-k 0: must be at least 1"),
        (("x.png", "--workers", "0"), 2, "--workers 0: must be at least 1"),
        (("x.png", "--out", "."), 2, "--out '.': this is a folder; name a file"),
        (("*.png",), 1, "no image file matches '*.png'"),
        ((".",), 1, "no image files under the folder '.'"),
        *(
            (("x.png", f"--shard={shard}"), 2, f"--shard '{shard}': expected I/N")
            for shard in ("0/2", "3/2", "1", "1/0", "-1/2", "a/b", "", "1/2/3", "1 / 2")
        ),
    ],
)
def test_mistake_is_one_line_and_a_status(
    arguments: tuple[str, ...], status: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("stopped/checkpoint").mkdir(parents=True)
    got, out, err = called(capfd, "predict", *arguments)
    assert (got, out) == (status, "")
    assert err.splitlines()[-1].startswith(f"thawnet: {message}")


def test_launched_processes_do_not_read_one_stdin(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, out, err = call("-")
    assert (status, out) == (2, "")
    assert err.startswith("thawnet: - with RANK, WORLD_SIZE: every process must see the same list")
