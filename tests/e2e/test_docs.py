"""README and docs: what can be run is run, on photos drawn here, from the embedded weights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from support.documents import PAGES, ROOT, Block, blocks, read_document
from support.hub import hub_here
from support.photos import heap, write_photos
from support.systems import POSIX
from thawnet import cli, embedded
from thawnet.recipe import parse_recipe

RUN = [page for page in PAGES if any(block.mark == "run" for block in blocks(page))]
CODE = ("sh", "console", "python")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_where_it_comes_from(page: str) -> None:
    for block in blocks(page):
        assert block.language, block.code
        if block.language in CODE:
            assert re.fullmatch("run|seen: .+|not run: .+", block.mark), (block.mark, block.code)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub("```.*?```", "", read_document(page), flags=re.S)
    for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_readme_is_short() -> None:
    assert len(read_document("README.md").encode()) <= 8000


@pytest.mark.parametrize("page", ["README.md", "docs/guarantees.md"])
def test_tests_that_are_named_exist(page: str) -> None:
    for line in read_document(page).splitlines():
        for path in re.findall(r"tests/[\w/]+\.py", line):
            assert (ROOT / path).is_file(), path
        for name in re.findall(r"`(test_\w+)`", line):
            texts = [read_document(path) for path in re.findall(r"tests/[\w/]+\.py", line)]
            assert any(f"def {name}(" in text for text in texts), name


def test_command_reference_is_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import command_reference as page; print(page.page(), end='')"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools"), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == read_document("docs/cli.md"), "run tools/command_reference.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages speak of: photos, two runs on them, a heap."""
    folder = tmp_path_factory.mktemp("world")
    photos = write_photos(folder / "photos", {"cat": 16, "dog": 16})
    shutil.copy(photos / "cat" / "003.png", folder / "photo.jpg")
    (folder / "notes.txt").write_text("no image")
    heap(folder / "heap", "1.png", "2.png")
    (folder / "weights.safetensors").write_bytes(_published())
    for number in (1, 2):
        words = ["--weights", str(folder / "weights.safetensors"), "--size", "64", "--no-report"]
        out = str(folder / "runs" / f"photos-quick-{number}")
        own = ["--folds", "2", "--seed", str(number), "--out", out]
        assert cli.main(["train", str(photos), *words, *own]) == 0
    return folder


@POSIX  # the shell
@pytest.mark.slow  # they train
@pytest.mark.parametrize("page", RUN)
def test_blocks_that_are_run_do_what_they_say(
    page: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(here)
    names: dict[str, Any] = {}
    with hub_here(monkeypatch, tmp_path / "hub") as hub:
        hub.files["model.safetensors"] = (here / "weights.safetensors").read_bytes()
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        programs = Path(sys.executable).parent
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        for block in blocks(page):
            if block.mark == "run":
                _run(block, names)


def _published() -> bytes:
    """Return weights as timm publishes them: the embedded ones, with a head of 1,000 classes."""
    trunk = load_file(embedded.BUNDLE / "model.safetensors")
    head = {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    return save({**{name: value.float() for name, value in trunk.items()}, **head})


def _run(block: Block, names: dict[str, Any]) -> None:
    if block.language == "python":
        exec(compile(block.code, "the page", "exec"), names)
    elif block.language == "toml":
        parse_recipe(block.code, "the page")
    elif block.language == "sh":
        done = subprocess.run(
            ["bash", "-ec", block.code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.code, re.M):
            done = subprocess.run(
                ["bash", "-c", command], capture_output=True, text=True, check=False
            )
            assert re.fullmatch(_pattern(output), done.stdout), done.stdout + done.stderr


def _pattern(output: str) -> str:
    """Return what matches an output: '...' stands for anything."""
    return re.escape(output).replace(re.escape("..."), "(?:.|\n)*")
