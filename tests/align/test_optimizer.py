"""A recipe's `merging` becomes the optimizer that the table names, with what it leaves out at its defaults."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mergetool import optim
from mergetool.align import align_recipe
from mergetool.align.optimizer import make_optimizer, merged_so_far
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError, RecipeError
from mergetool.lab import lab_path
from mergetool.methods import TRAININGS

CONFIG = SimpleNamespace(learning_rate=1e-3, adam_beta1=0.9, adam_beta2=0.99, adam_epsilon=1e-7)


def made(**merging: object):
    recipe = align_recipe({"base_model": "b", "sft_model": "s", "data": {"train": "t.jsonl"}, "merging": merging})
    p = torch.nn.Parameter(torch.zeros(64, 48))
    groups = [{"params": [("model.layers.0.self_attn.q_proj.weight", p)], "weight_decay": 0.0}]
    row = TRAININGS.get(str(merging["method"]))
    needs = row is not None and row.mixes
    base, sft = (lab_path("base"), lab_path("sft")) if needs else (None, lab_path("sft"))
    if needs:
        name = groups[0]["params"][0][0]
        shape = read_layout(sft).tensors[name].shape
        groups[0]["params"] = [(name, torch.nn.Parameter(torch.zeros(shape)))]
    return make_optimizer(recipe, groups, 10, CONFIG, base, sft)


@pytest.mark.parametrize(
    ("merging", "kind", "total"),
    [
        ({"method": "adamw"}, "AdamW", 0.0),
        ({"method": "kl"}, "AdamW", 0.0),
        ({"method": "ondare", "alpha_total": 0.5, "every": 2}, "OnDARE", 0.5),
        ({"method": "ondare", "alpha": 0.1, "density": 0.5, "rescale": "none"}, "OnDARE", 0.5),
        ({"method": "onties", "alpha": 0.1, "every": "total"}, "OnTIES", 0.1),
        ({"method": "onlinear", "alpha": 0.5, "every": 5}, "OnLinear", 0.75),
        ({"method": "childtuning", "density": 0.3}, "OnDARE", 0.0),
    ],
)
def test_the_optimizer_and_what_it_will_merge(merging: dict, kind: str, total: float) -> None:
    optimizer, plan = made(**merging)
    assert type(optimizer).__name__ == kind
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"], optimizer.defaults["eps"]) == (1e-3, (0.9, 0.99), 1e-7)
    assert plan.merged_total == pytest.approx(total)
    assert merged_so_far(optimizer, plan.method) == 0.0
    if isinstance(optimizer, optim.OnDARE | optim.OnTIES | optim.OnLinear):
        assert plan.merges == optimizer.planned(10).merges


def test_childtuning_is_unbiased_and_merges_nothing() -> None:
    optimizer, _ = made(method="childtuning", density=0.3)
    group = optimizer.param_groups[0]
    assert (group["alpha"], group["rescale"], group["density"]) == (0.0, "unbiased", 0.3)


def test_onlinear_has_no_clip_and_a_recipe_that_gives_one_is_told() -> None:
    with pytest.raises(RecipeError, match="'clip' is not an option of method onlinear"):
        made(method="onlinear", alpha=0.1, clip=1.0)


@pytest.mark.parametrize("method", sorted(name for name, row in TRAININGS.items() if not row.online.calibrated))
def test_a_head_that_the_sft_model_has_not_takes_adamws_own_steps(method: str) -> None:
    """Bit for bit, whatever becomes of the trunk beside it."""
    row = TRAININGS[method]
    options = {"density": 0.1} if "density" in row.keys else {}
    options |= {"alpha_total": 0.5} if row.mixes else {"every": 2}
    values = {"base_model": "b", "sft_model": "s", "algorithm": "reward", "data": {"train": "t.jsonl"}}
    recipe = align_recipe({**values, "merging": {"method": method, **options}})
    name, generator = "model.layers.0.self_attn.q_proj.weight", torch.Generator().manual_seed(0)
    trunk = torch.nn.Parameter(torch.randn(read_layout(lab_path("sft")).tensors[name].shape, generator=generator))
    head = torch.nn.Parameter(torch.randn(1, 48, generator=generator))
    twins = [torch.nn.Parameter(p.detach().clone()) for p in (trunk, head)]
    groups = [{"params": [(n, p)], "weight_decay": 0.01} for n, p in ((name, trunk), ("score.weight", head))]
    optimizer, plan = make_optimizer(recipe, groups[:1], 4, CONFIG, lab_path("base"), lab_path("sft"), head=groups[1:])
    adam = torch.optim.AdamW(twins, lr=1e-3, betas=(0.9, 0.99), eps=1e-7, weight_decay=0.01, fused=True)
    for _ in range(4):
        for one, twin in zip((trunk, head), twins, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            twin.grad = one.grad.clone()
        optimizer.step()
        adam.step()
    assert torch.equal(head, twins[1])
    assert not torch.equal(trunk, twins[0])
    assert merged_so_far(optimizer, plan.method) == pytest.approx(plan.merged_total)
    lost = [{"params": [("model.layers.9.weight", trunk)], "weight_decay": 0.0}]
    if row.mixes:  # of the trunk nothing may be missing
        with pytest.raises(CheckpointError, match=r"lacks model\.layers\.9"):
            make_optimizer(recipe, lost, 4, CONFIG, lab_path("base"), lab_path("sft"), head=groups[1:])


def test_of_projected_row_gradients_the_plan_says_when_they_are_computed_anew() -> None:
    asked = {"method": "ogpsa", "rows": {"data": "rows.jsonl"}}
    assert [made(**asked)[1].every, made(**asked, every=7)[1].every, made(method="adamw")[1].every] == [5, 7, 1]
