"""Whoever makes the candidates, the lines are the same; a worker that dies costs one more try of its own candidate."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.execution.scheduler import Executor, Lost, schedule


class Fake:
    """An evaluator whose candidates are words."""

    def about(self, candidate):
        return {"name": candidate.name, "error": None}


class Recorder(Executor):
    """Does nothing, and remembers what was under way at the same time. `dies`: how often each candidate's worker does."""

    def __init__(self, size, fails=(), dies=None):
        super().__init__(Fake(), size)
        self.fails, self.dies, self.together, self.renewed = fails, dict(dies or {}), [], []

    def _submit(self, seat, candidate):
        return f"{candidate.name} {self.dies.get(candidate.name, 0)}"

    def _wait(self, handles):
        self.together.append([handle.split()[0] for handle in handles])
        return handles[:1]

    def _result(self, handle):
        name = handle.split()[0]
        if self.dies.get(name, 0):
            self.dies[name] -= 1
            raise Lost("gone")
        return {"name": name, "error": "bad" if name in self.fails else None}

    def _renew(self, seat):
        self.renewed.append(seat)

    def close(self):
        return


def named(*pairs):
    runs = {name: AlignCandidate(name, name, name) for _, name in pairs if name}
    return [MergeCandidate(name, name, name, run=runs.get(needs)) for name, needs in pairs]


def schedule_over(executor, candidates, more=None):
    rows = {}

    def record(candidate, row):
        assert candidate.name not in rows, "once each"
        rows[candidate.name] = row["error"]
        return (more or {}).get(candidate.name, [])

    schedule(executor.evaluator, candidates, executor, record, lambda done, total, what: None)
    return rows


def test_what_needs_a_run_waits_for_it_and_the_others_do_not():
    executor = Recorder(3)
    assert list(schedule_over(executor, named(("b", "a"), ("a", None), ("c", None)))) == ["a", "c", "b"]
    assert executor.together[0] == ["a", "c"]


def test_what_needs_a_run_that_failed_is_recorded_and_not_made():
    rows = schedule_over(Recorder(2, fails=["a"]), named(("a", None), ("b", "a"), ("c", None)))
    assert rows["a"] == "bad"
    assert "its RLHF model 'a' could not be made" in rows["b"]
    assert rows["c"] is None


def test_no_more_are_under_way_than_there_are_seats():
    executor = Recorder(2)
    schedule_over(executor, named(*((name, None) for name in "abcdef")))
    assert {len(some) for some in executor.together} == {2, 1}


def test_what_a_line_asks_for_besides_is_made_too():
    rows = schedule_over(Recorder(1), named(("a", None)), {"a": named(("b", None)), "b": named(("c", "a"))})
    assert list(rows) == ["a", "b", "c"]


def test_a_candidate_whose_worker_died_gets_one_more_try_and_the_others_lose_nothing():
    executor = Recorder(2, dies={"a": 1, "b": 2})
    rows = schedule_over(executor, named(("a", None), ("b", None), ("c", None)))
    assert rows["a"] is None
    assert "its worker died 2 times" in rows["b"]
    assert rows["c"] is None
    assert len(executor.renewed) == 3


def test_without_sft_there_is_no_study():
    with pytest.raises(MergetoolError, match="sft: its worker died"):
        schedule_over(Recorder(1, dies={"sft": 2}), named(("sft", None)))
