"""A plan counts what will be read and written, each source once."""

from __future__ import annotations

from pathlib import Path

from mergetool.merge import MergeRecipe, plan_merge
from mergetool.merge.plan import TensorPlan, Term
from tests.helpers import write_triple


def test_the_sources_of_a_tensor_are_each_read_once() -> None:
    def tensor(*terms: Term) -> TensorPlan:
        return TensorPlan("x", (2,), 2, "F32", True, 0, terms)

    assert tensor().sources == [0]
    assert tensor(Term(1, 0, 1.0, "0"), Term(2, 0, 1.0, "1")).sources == [0, 1, 2]
    assert tensor(Term(2, 1, 1.0, "0"), Term(1, 0, 1.0, "1")).sources == [0, 2, 1]
    assert tensor(Term(1, None, 1.0, "0"), Term(2, None, 1.0, "1")).sources == [1, 2], "of models, the base is not read"


def test_bytes_are_those_of_the_files(tmp_path: Path) -> None:
    triple = write_triple(tmp_path)
    models = [{"model": str(triple[name]), "parameters": {"weight": 1.0}} for name in ("sft", "rlhf")]
    recipe = {"merge_method": "task_arithmetic", "base_model": str(triple["base"]), "models": models, "dtype": "bfloat16"}
    plan = plan_merge(MergeRecipe.model_validate(recipe))
    weights = sum(info.nbytes for info in plan.sources[0].layout.tensors.values())
    assert plan.bytes_read == 3 * weights
    assert plan.bytes_written == weights // 2
    assert plan.files_of("model.norm.weight", [0, 1]) == [triple[n] / "model.safetensors" for n in ("base", "sft")]
