"""docs/serve.md and the Dockerfile: what can be tried of them without systemd and Docker.

Its nginx example runs in tests/e2e/test_proxied_page.py.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.awaiting import wait_until
from support.documents import ROOT, only_block, read_document
from support.nginx import free_port
from support.service import Service
from thawnet.commands.serve import ServeOptions
from thawnet.core.flags import parse

SYSTEMD = shutil.which("systemd-analyze")
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent)
DOCS = "docs/serve.md"
DOCKERFILE = read_document("Dockerfile").replace("\\\n", "")


def options(words: list[str]) -> ServeOptions:
    """Return the options of `thawnet serve ...`."""
    assert words[:2] == ["thawnet", "serve"]
    parsed: ServeOptions = parse(ServeOptions, words[2:])
    return parsed


def instructions(kind: str) -> list[str]:
    """Return what stands after each instruction of a kind in the Dockerfile."""
    return re.findall(rf"^\s*{kind} (.*)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.skipif(SYSTEMD is None, reason="there is no systemd-analyze here")
def test_unit_is_whole_and_confined(tmp_path: Path) -> None:
    assert SYSTEMD is not None
    unit = tmp_path / "thawnet.service"
    text = only_block(DOCS, "ini")
    program = Path(sys.executable).with_name("thawnet")
    unit.write_text(text.replace("/opt/thawnet/bin/thawnet", str(program)))
    done = subprocess.run([SYSTEMD, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = [SYSTEMD, "security", "--offline=yes", "--threshold=50", unit]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout  # "exposure" of at most 5.0 of 10


def test_calls_of_the_service_are_understood() -> None:
    words = shlex.split(re.findall("^ExecStart=(.*)", only_block(DOCS, "ini"), re.M)[0])
    unit = options([Path(words[0]).name, *words[1:]])
    assert unit.public_url == "https://photos.example.org"
    assert unit.access_log
    text = read_document(DOCS).replace("\\\n", "")
    lines = re.findall(r"^(THAWNET_TOKEN=.* thawnet serve .*)$", text, re.MULTILINE)
    home, behind = (options(line.split()[1:]) for line in lines)
    assert (home.host, behind.public_url) == ("0.0.0.0", unit.public_url)
    image = json.loads(instructions("ENTRYPOINT")[0])
    (told,) = re.findall(r"^docker run .* thawnet (--.*)$", text, re.MULTILINE)
    container = options([*image, *told.split()])
    assert (container.host, container.model) == ("0.0.0.0", Path("/model"))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_dockerfile_passes_its_linter() -> None:
    assert HADOLINT is not None
    subprocess.run([HADOLINT, ROOT / "Dockerfile"], check=True)


def test_image_gets_the_files_that_it_is_built_from() -> None:
    sources = [name for line in instructions("COPY") for name in line.split()[:-1]]
    rules = read_document(".dockerignore").split()
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    for name in sources:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, rule) for rule in allowed), name
    project = tomllib.loads(read_document("pyproject.toml"))["project"]
    assert {project["readme"], *project["license-files"]} <= set(sources)


def test_image_is_not_run_by_root() -> None:
    assert int(instructions("USER")[-1]) > 0
    assert DOCKERFILE.index("USER") < DOCKERFILE.index("ENTRYPOINT")


def test_health_check_tells_a_service_from_none(service: Service) -> None:
    (line,) = instructions("HEALTHCHECK")
    _, *words = json.loads(line.split("CMD ")[1])
    wait_until(lambda: service.ask("GET", "/readyz").status == 200, 30)
    for port, healthy in ((service.port, True), (free_port(), False)):
        asked = [word.replace(":8000/", f":{port}/") for word in words]
        assert asked != words
        done = subprocess.run([sys.executable, *asked], capture_output=True, check=False)
        assert (done.returncode == 0) == healthy
