"""Row scores come back from JSON as they were; a column of equal numbers is written once."""

from __future__ import annotations

import json

from mergetool.study.analysis.row_scores import RowColumns, read, written


def test_what_is_written_comes_back() -> None:
    scores = {
        "test": {
            "a.nll": RowColumns(([0.1, 2.5], [3.0, 4.0]), (0, 0)),
            "a.exact_match": RowColumns(([1.0, 1.0], [1.0, 1.0])),
        }
    }
    kept = json.loads(json.dumps(written(scores)))
    assert kept["test"]["a.exact_match"] == {"columns": [[1.0, 1.0], 1.0]}
    assert read(kept) == scores
