"""results.jsonl: later lines win, errors are no results."""

from mergetool.study.execution.results import Results


def test_later_lines_win_and_errors_are_not_results(tmp_path):
    results = Results(tmp_path / "r.jsonl")
    results.add({"key": "a", "name": "one", "error": "broken"})
    assert results.done("a") is None
    results.add({"key": "a", "name": "one", "error": None, "scores": {}, "n": 1})
    assert Results(tmp_path / "r.jsonl").done("a")["n"] == 1
