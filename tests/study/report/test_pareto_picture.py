"""The picture is one file, drawn wholly or not at all."""

import pytest

from mergetool.study.report import pareto_picture
from mergetool.study.report.pareto_picture import draw_pareto


def test_a_picture_is_written_for_either_split_and_a_failure_leaves_none(summary, tmp_path, monkeypatch):
    test, validation = (draw_pareto(summary, tmp_path / f"{split}.png", "a", split) for split in ("test", "validation"))
    assert test.read_bytes()[:4] == validation.read_bytes()[:4] == b"\x89PNG"
    assert test.read_bytes() != validation.read_bytes(), "the split is in the title"
    monkeypatch.setattr(pareto_picture, "draw_texts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_pareto(summary, tmp_path / "broken.png", "a")
    assert not (tmp_path / "broken.png").exists()
