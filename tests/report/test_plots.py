"""The history plot."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from thawnet.report.plots import plot_history


def test_history_is_a_png_for_a_slide(tmp_path: Path) -> None:
    history = [
        {
            "epoch": 1 + epoch if epoch < 3 else 2 + epoch / 2,
            "phase": epoch // 3,
            "train_accuracy": 0.3 + 0.1 * epoch,
            "val_accuracy": 0.3 + 0.08 * epoch,
            "train_loss": 2 - 0.2 * epoch,
            "val_loss": 2 - 0.1 * epoch,
        }
        for epoch in range(6)
    ]
    plot_history(tmp_path / "history.png", history, "digits", "validation")
    with Image.open(tmp_path / "history.png") as picture:
        assert picture.size == (1800, 810)
        assert len(picture.convert("L").getcolors(1 << 20) or []) > 50
