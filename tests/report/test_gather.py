"""The report of a run: written in the end, made again, and never the reason why a run fails."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import pytest

from thawnet import job
from thawnet.commands.report import ReportOptions, report
from thawnet.core.errors import DataError, UsageError
from thawnet.core.files import cache_folder
from thawnet.recipe import TrainOptions
from thawnet.report import gather
from thawnet.training.run_folder import Outcome


def text_of(path: Path) -> str:
    """Return a page's text without its markup, styles and scripts."""
    page = re.sub(r"(?s)<(style|script).*?</\1>", "", path.read_text(encoding="utf-8"))
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def features_kept() -> set[str]:
    return {entry.name for entry in (cache_folder() / "features").iterdir()}


@pytest.fixture
def finished(options: TrainOptions) -> Outcome:
    return job.train(dataclasses.replace(options, no_report=False))


def test_run_leaves_a_report_that_the_command_makes_again(
    finished: Outcome, options: TrainOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished.folder / "report.html"
    told = text_of(path)
    assert f"{100 * finished.result.scores.accuracy:.2f}" in told
    assert "logistic regression on frozen features" in told
    before = path.read_text(encoding="utf-8")
    path.unlink()
    kept = features_kept()
    report(ReportOptions(finished.folder))  # the run says where its data lies
    assert features_kept() == kept  # those of the run serve again
    assert f"{path}: " in capsys.readouterr().out
    # All but the seconds that the sections took.
    wanted, found = (re.sub(r"\d+\.\d+ s", "", page) for page in (before, path.read_text("utf-8")))
    assert len(found) == pytest.approx(len(wanted), rel=0.02)
    assert re.findall(r"data:image/webp;base64,[^\"']+", found) == re.findall(
        r"data:image/webp;base64,[^\"']+", wanted
    )


def test_failure_of_the_report_is_a_line_and_the_run_is_finished(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise DataError("the photos are gone")

    monkeypatch.setattr(gather, "audit", fail)
    outcome = job.train(dataclasses.replace(options, no_report=False))
    assert (outcome.folder / "result.json").exists()
    assert not (outcome.folder / "report.html").exists()
    assert "no report (the photos are gone)" in capsys.readouterr().err


def test_no_report_where_none_is_asked_for(options: TrainOptions) -> None:
    assert not (job.train(options).folder / "report.html").exists()


def test_report_of_a_run_without_test_leaves_the_test_part_closed(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "audit", lambda *_: pytest.fail("the test part was opened"))
    outcome = job.train(dataclasses.replace(options, no_report=False, no_test=True))
    told = text_of(outcome.folder / "report.html")
    assert "this run read no test part" in told
    assert "validation accuracy" in told


def test_other_data_is_refused(finished: Outcome, options: TrainOptions) -> None:
    Path(options.data).rename("elsewhere")
    with pytest.raises(UsageError, match=r"--data is missing.*not where the run found it"):
        report(ReportOptions(finished.folder))
    Path("elsewhere").rename(options.data)
    next((Path(options.data) / "a").iterdir()).unlink()
    with pytest.raises(DataError, match="is not what"):
        report(ReportOptions(finished.folder, data=options.data))
