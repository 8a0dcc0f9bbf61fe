"""Threads share a merge's tensors out; torch's own stay out of the way meanwhile, and come back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.merge import MergeRecipe, merge_tensors, plan_merge
from mergetool.merge.plan import Plan
from mergetool.merge.threads import Mergers, single_threaded_torch
from tests.helpers import write_triple


def planned(triple: dict[str, Path], *names: str) -> Plan:
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in names]
    return plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))


def test_torchs_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail() -> None:
        with single_threaded_torch():
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_merges_in_one_reading_need_the_same_inputs_in_the_same_order(tmp_path: Path) -> None:
    triple = write_triple(tmp_path)
    one, other = planned(triple, "sft", "rlhf"), planned(triple, "rlhf", "sft")
    assert Mergers([one, one], "cpu", False).mine() is not None
    with pytest.raises(ValueError, match="same inputs in the same order"):
        Mergers([one, other], "cpu", False)


def test_tensors_come_in_the_plans_order_whatever_the_number_of_threads(tmp_path: Path) -> None:
    plan = planned(write_triple(tmp_path), "sft", "rlhf")
    one, many = (list(merge_tensors(plan, threads=count)) for count in (1, 4))
    assert [name for name, _ in one] == [name for name, _ in many] == [tensor.name for tensor in plan.tensors]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, many, strict=True))
