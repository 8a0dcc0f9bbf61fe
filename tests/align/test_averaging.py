"""What is kept beside a training is what was written, goes on after a kill, and lies as the parameters lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.averaging import gathered, scattered
from mergetool.align.check import rehearsed_check
from mergetool.checkpoint.manifest import Manifest
from mergetool.errors import RecipeError
from mergetool.optim.sharding import shard_of
from tests.align.test_baselines import load, same
from tests.align.test_run import Killed, killer
from tests.align.tiny import recipe_text

SYNC = {"sync_ref_model": True, "ref_model_mixup_alpha": 0.5, "ref_model_sync_steps": 2}


def recipe(folder: Path, merging: dict, **training: Any) -> Any:
    values = recipe_text(folder, merging=merging)
    values["training"] |= {"learning_rate": 1e-2, **training}
    return align_recipe(values, folder)


@pytest.fixture(scope="module")
def plain(triple, tmp_path_factory) -> Path:
    """An AdamW run with the weights of every step."""
    out = tmp_path_factory.mktemp("plain") / "out"
    align(recipe(triple, {"method": "adamw"}), out, along=[1, 2, 3, 4, 5])
    return out


def test_sma_of_a_run_is_the_mean_of_its_checkpoints_and_the_result_says_so(triple, plain, tmp_path) -> None:
    import torch

    result = align(recipe(triple, {"method": "sma", "since": 2}), tmp_path / "out", picture=True)
    steps = [load(plain / f"along/step-{step}") for step in (3, 4, 5)] + [load(plain)]
    for name, mean in load(tmp_path / "out").items():
        torch.testing.assert_close(mean, torch.stack([one[name] for one in steps]).mean(0), rtol=0, atol=1e-6)
    written = "the mean of the weights of steps 3 to 6"
    assert result.merging["written"] == Manifest.read(tmp_path / "out").merging["written"] == written
    assert f"DPO with sma: {written}." in (tmp_path / "out/README.md").read_text()


def test_reset_once_at_the_end_is_the_average(triple, tmp_path) -> None:
    align(recipe(triple, {"method": "ema", "coefficient": 0.3}), tmp_path / "ema")
    align(recipe(triple, {"method": "elastic_reset", "coefficient": 0.3, "every": "total"}), tmp_path / "reset")
    assert same(load(tmp_path / "ema"), load(tmp_path / "reset"))


@pytest.mark.parametrize(
    "merging",
    [{"method": "bema", "every": 2}, {"method": "elastic_reset", "coefficient": 0.3, "every": 3}, "a reference"],
    ids=str,
)
def test_a_killed_run_resumes_to_the_same_bytes(triple, tmp_path, merging: Any) -> None:
    moved = SYNC if merging == "a reference" else {}
    made = recipe(triple, merging if isinstance(merging, dict) else {"method": "adamw"}, save_steps=2, **moved)
    align(made, tmp_path / "whole")
    with pytest.raises(Killed):
        align(made, tmp_path / "out", report=killer(5))
    assert align(made, tmp_path / "out").resumed_from == 4
    assert same(load(tmp_path / "out"), load(tmp_path / "whole"))


def test_a_reference_that_moves_is_trls_and_merging_keeps_the_sft_model(trainer) -> None:
    import torch

    made, _ = trainer({"method": "onlinear", "alpha": 0.3}, **SYNC, max_steps=4, learning_rate=1e-2)
    start = {name: p.detach().clone() for name, p in made.ref_model.named_parameters()}
    seen = []
    step = made.training_step
    made.training_step = lambda *args, **kwargs: (seen.append(state(made.model)), step(*args, **kwargs))[1]
    made.train()
    assert made.precompute_ref_logps is False
    after_two, after_four = seen[2], state(made.model)
    points = made.optimizer.optimizer.reference.points()
    for name, p in made.ref_model.named_parameters():
        wanted = 0.5 * (0.5 * start[name] + 0.5 * after_two[name]) + 0.5 * after_four[name]
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-6)
        assert not torch.equal(p, start[name])
        origin = points.delta(name, shard_of(p), p.device).block(0, p.numel())
        assert torch.equal(origin.view_as(p), start[name]), "what merging goes back to has not moved"


def state(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_check_passes_a_reference_that_can_move_and_refuses_what_cannot(triple) -> None:
    rehearsed_check(recipe(triple, {"method": "adamw"}, **SYNC))
    with pytest.raises(RecipeError, match="sync_ref_model: precompute_ref_log_probs"):
        rehearsed_check(recipe(triple, {"method": "adamw"}, **SYNC, precompute_ref_log_probs=True))
    with pytest.raises(RecipeError, match="sync_ref_model: the reference of lora"):
        rehearsed_check(recipe(triple, {"method": "lora"}, **SYNC))


def test_a_run_too_short_for_its_average_is_one_line_and_leaves_nothing(triple, tmp_path) -> None:
    with pytest.raises(RecipeError, match="at step 9, and the run has 6"):
        align(recipe(triple, {"method": "sma", "every": 9}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RecipeError, match="elastic_reset has no default for every"):
        recipe(triple, {"method": "elastic_reset"})


def test_parts_of_a_sharded_parameter_make_the_whole_again(tmp_path) -> None:
    import torch
    import torch.distributed as dist
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        whole = torch.arange(12.0).reshape(4, 3)
        parameter = distribute_tensor(torch.zeros(4, 3), init_device_mesh("cpu", (1,)), [Shard(0)])
        assert torch.equal(gathered(scattered(whole, parameter), parameter), whole)
        assert gathered(whole, torch.zeros(4, 3)) is whole
    finally:
        dist.destroy_process_group()
