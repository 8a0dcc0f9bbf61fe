"""A run that nobody listens to says nothing."""

from __future__ import annotations

import pytest

from mergetool.align.report import Report, silent


def test_silence_takes_any_event_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report: Report = silent
    assert report("step", {"step": 1}) is None
    assert capsys.readouterr() == ("", "")
