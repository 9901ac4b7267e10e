"""The notebook of the documentation, executed by Jupyter's own kernel."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from support.documents import ROOT


def outputs_of(cell: Any, kind: str) -> list[Any]:
    """Return a cell's outputs of a kind of content."""
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_notebook_runs_and_shows_its_plot(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = json.dumps([cell.outputs for cell in code])
    assert "phase 2, fine-tune" in said
    (plot,) = [image for cell in code for image in outputs_of(cell, "image/png")]
    assert base64.b64decode(plot).startswith(b"\x89PNG")
    (shown,) = outputs_of(code[2], "text/plain")
    assert "test accuracy: " in shown
    assert (tmp_path / "digits" / "report.html").exists()
