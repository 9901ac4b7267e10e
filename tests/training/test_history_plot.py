"""The history plot: the picture, and the figures drawn in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.figures import curves, figures_of, words
from support.results import validation
from thawnet.core.errors import RunError
from thawnet.training import history_plot
from thawnet.training.history_plot import plot_history
from thawnet.training.run_folder import Outcome

HISTORY = [
    validation(1, 0, 0.3),
    validation(2, 0, 0.4, True),
    validation(2.5, 1, 0.62, True),
    validation(3, 1, 0.55),
]


def test_history_is_a_png_for_a_slide(tmp_path: Path) -> None:
    plot_history(tmp_path / "history.png", HISTORY, "digits", "validation")
    with Image.open(tmp_path / "history.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1800, 810))


def test_curves_are_the_figures_of_every_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = figures_of(monkeypatch, history_plot)
    plot_history(tmp_path / "history.png", HISTORY, "digits", "validation")
    (figure,) = figures
    assert figure.get_suptitle() == "digits"
    epochs = [1, 2, 2.5, 3]
    for axes, key, scale in zip(figure.axes, ("accuracy", "loss"), (100, 1), strict=True):
        train, val, thaw, *others = curves(axes)
        for curve, name in ((train, f"train_{key}"), (val, f"val_{key}")):
            assert curve == (epochs, pytest.approx([scale * getattr(row, name) for row in HISTORY]))
        assert thaw[0] == [2.25, 2.25]  # between the head's last and the next
        assert [line.get_label() for line in axes.lines[:2]] == ["training", "validation"]
        assert words(axes)[:2] == ["head only", "thawed: fine-tuning"]
        # The network that is left, which is not the last one.
        assert others == ([([2.5], [pytest.approx(62)])] if key == "accuracy" else [])
    assert words(figure.axes[0])[-1] == "62.0 %"


def test_a_run_of_one_phase_has_nothing_to_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = figures_of(monkeypatch, history_plot)
    plot_history(tmp_path / "history.png", HISTORY[:2], "digits", "validation")
    assert len(curves(figures[0].axes[1])) == 2
    assert words(figures[0].axes[1]) == []


def test_a_run_leaves_its_plot(finished: Outcome) -> None:
    with Image.open(finished.folder / "history.png") as picture:
        assert picture.size == (1800, 810)


def test_outcome_gives_the_plot_as_an_image(finished: Outcome, tmp_path: Path) -> None:
    with Image.open(finished.folder / "history.png") as image:
        assert finished.plot().size == image.size
    (tmp_path / "history.png").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"history.png' cannot be read \(cannot identify"):
        Outcome(tmp_path, finished.result).plot()
