"""Rows become what the model reads; those of another tokenizer, or without a token, are one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.activations.rows import calibration_rows, shown
from mergetool.errors import DataError
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "sft", random_weights(0))


def written(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def test_rows_are_cut_and_counted(model: Path, tmp_path: Path) -> None:
    ids, counts = calibration_rows(model, [written(tmp_path / "r.jsonl", "w0 w1 w2", "w3")], None, 2)
    assert ids == [(4, 5), (7,)]
    assert counts == {"rows": 2, "empty": 0, "tokens": 3}


def test_rows_of_another_tokenizer_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="knows only 0% of the words; give rows in its language"):
        calibration_rows(model, [written(tmp_path / "r.jsonl", "ein ganz anderer Satz")], None, 99)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    with pytest.raises(DataError, match="token id 33, and the model's embedding has 10 rows"):
        calibration_rows(model, [written(tmp_path / "s.jsonl", "w29")], None, 99)


def test_a_path_is_shown_by_its_name_alone() -> None:
    assert (shown(Path("/home/me/rows.jsonl")), shown("org/data")) == ("rows.jsonl", "org/data")
