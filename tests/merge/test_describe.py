"""What a merge will cost is told from headers: the bytes that it then reads and writes."""

from __future__ import annotations

from pathlib import Path

from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.describe import describe
from tests.helpers import write_triple


def test_bytes_and_tensors_are_those_of_the_result(tmp_path: Path) -> None:
    triple = write_triple(tmp_path / "in")
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    plan = plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models, "dtype": "bfloat16"}))
    told = describe(plan, threads=2)
    merge_to_directory(plan, tmp_path / "out")
    written = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert (told["engine"], told["method"], told["dtype"]) == ("native", "linear", ["BF16"])
    assert 0 < written - told["bytes_written"] < 10_000, "all but the header"
    assert told["bytes_read"] == 4 * told["bytes_written"]
    assert describe(plan, threads=4)["bytes_of_peak_memory"] > told["bytes_of_peak_memory"]


def test_of_mergekits_part_the_reason_is_told(tmp_path: Path) -> None:
    triple = write_triple(tmp_path)
    models = [{"model": str(triple["sft"]), "parameters": {"weight": 1.0}}]
    plan = plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}), engine="mergekit")
    assert describe(plan) == {"engine": "mergekit", "reason": "asked for"}
