"""Whoever makes the candidates, the lines are the same; a worker that dies costs one more try of its own candidate."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import run_study
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.execution.process_executor import devices_of
from mergetool.study.execution.scheduler import Executor, Lost, schedule
from tests.study import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.triple(tmp_path_factory.mktemp("triple"))


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


@pytest.mark.parametrize(
    ("count", "named", "device", "expected"),
    [
        (0, None, None, [None, None]),
        (1, None, None, [None, None]),
        (2, None, None, ["0", "1"]),
        (2, "6,7", "cuda", ["6", "7"]),
        (2, "GPU-a, GPU-b", None, ["GPU-a", "GPU-b"]),
        (2, None, "cuda:1", [None, None]),
        (2, None, "cpu", [None, None]),
    ],
)
def test_each_worker_sees_a_gpu_of_its_own(monkeypatch, count, named, device, expected):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [devices_of(seat, device) for seat in range(2)] == expected
    if count == 2 and device is None and named is None:
        assert devices_of(2, device) == "0", "three workers on two GPUs: the third shares the first"


DEADLY = """
import os, signal
from pathlib import Path

def reward(*args, **kwargs):
    note = Path({note!r})
    tries = int(note.read_text()) if note.exists() else 0
    note.write_text(str(tries + 1))
    if tries < {deaths}:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("this time it only fails")
"""


def deadly(folder, tmp_path, deaths, beside):
    """A study with a candidate that kills its worker in the middle of a training."""
    (tmp_path / "deadly.py").write_text(DEADLY.format(note=str(tmp_path / "tries"), deaths=deaths))
    training = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "num_generations": 2,
        "max_completion_length": 2,
        "use_cpu": True,
    }
    return tiny.study(
        folder,
        align_defaults={
            "algorithm": "grpo",
            "reward": str(tmp_path / "deadly.py:reward"),
            "data": {"train": "pairs_validation.jsonl"},
            "training": training,
        },
        candidates=[
            {"name": "deadly", "align": {"method": "adamw"}},
            beside,
        ],
    )


@pytest.mark.slow
def test_two_processes_give_the_same_lines_and_a_killed_one_is_replaced(folder, tmp_path):
    search = {
        "name": "found",
        "search": {"trials": 10, "batch": 2},
        "merge": {"merge_method": "ties", "weight": {"low": 0, "high": 1}, "density": 0.5},
    }
    study = deadly(folder, tmp_path, 1, search)
    result = run_study(study, tmp_path / "two", workers=2)
    assert (tmp_path / "tries").read_text() == "2"
    [(name, error)] = result.failures
    assert name == "deadly"
    assert "this time it only fails" in error
    same_lines(result, run_study(tiny.study(folder, candidates=[search]), tmp_path / "one"))


def same_lines(result, alone):
    by_name = {row["name"]: row for row in result.rows}
    for row in alone.rows:
        values = [one["scores"]["test"]["skills.nll"]["value"] for one in (row, by_name[row["name"]])]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_lines_and_a_dead_actor_is_replaced(folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray leaves its token there
    linear = tiny.mapping()["candidates"][0]
    try:
        result = run_study(deadly(folder, tmp_path, 1, linear), tmp_path / "ray", workers=2, ray="local")
        assert not ray.is_initialized()
    finally:
        ray.shutdown()
    assert (tmp_path / "tries").read_text() == "2"
    [(name, error)] = result.failures
    assert name == "deadly"
    assert "this time it only fails" in error
    same_lines(result, run_study(tiny.study(folder, candidates=[linear]), tmp_path / "alone"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there_is_one_line(folder, tmp_path, address):
    pytest.importorskip("ray")
    with pytest.raises(MergetoolError, match="no Ray cluster answers") as caught:
        run_study(tiny.study(folder), tmp_path / "out", ray=address)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(folder, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MergetoolError, match=r"Ray is not installed; pip install \"mergetool\[ray\]\""):
        run_study(tiny.study(folder), tmp_path / "out", ray="local")
