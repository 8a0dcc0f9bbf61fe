"""Theorem 3 on a real run: training with K = T ends where `mergetool merge` takes the SFT and RLHF checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.merge import MergeRecipe, merge_tensors, plan_merge
from mergetool.optim import OnDARE, OnLinear, OnTIES, Reference
from tests.align.tiny import make_triple

STEPS, ALPHA, SEED = 6, 0.25, 3


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triple")
    make_triple(folder)
    train(folder, lambda ps: torch.optim.AdamW(ps, lr=1e-3, weight_decay=0.0, fused=True)).save_pretrained(folder / "rlhf")
    return folder


def train(folder: Path, make):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "sft").eval()
    optimizer = make(list(model.named_parameters()))
    for step in range(STEPS):
        words = torch.randint(0, 30, (2, 12), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("cls", "method", "density"),
    [(OnDARE, "dare_linear", 0.02), (OnDARE, "dare_linear", 0.5), (OnTIES, "ties", 0.02), (OnTIES, "ties", 0.5),
     (OnLinear, "linear", 1.0)],
)  # fmt: skip
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_run_with_k_equal_t_ends_where_the_offline_recipe_does(
    triple: Path, cls: type, method: str, density: float, rounding: str
) -> None:
    base, sft, rlhf = (str(triple / name) for name in ("base", "sft", "rlhf"))
    settings = {} if method == "linear" else {"density": density}
    online = train(triple, lambda ps: cls(
        ps, lr=1e-3, alpha=ALPHA, every=STEPS, seed=SEED, rounding=rounding,
        reference=Reference.from_checkpoints(base, sft, storage="mmap"), **settings,
    ))  # fmt: skip
    if method == "linear":
        models = [{"model": rlhf, "parameters": {"weight": 1 - ALPHA}}, {"model": sft, "parameters": {"weight": ALPHA}}]
        recipe = MergeRecipe(merge_method="linear", models=models)
    else:
        models = [
            {"model": rlhf, "relative_to": sft, "parameters": {"weight": 1 - ALPHA, "density": density}},
            {"model": sft, "relative_to": base, "parameters": {"weight": ALPHA, "density": density}},
        ]
        extra = {"parameters": {"normalize": False}} if method == "ties" else {}
        recipe = MergeRecipe(merge_method=method, base_model=sft, models=models, seed=SEED, **extra)
    offline = dict(merge_tensors(plan_merge(recipe), threads=1))
    ulps = 1 if rounding == "nearest" else 2
    for name, value in online.named_parameters():
        gap = (value.detach() - offline[name]).abs()
        assert gap.max() <= ulps * 2.0**-23 * offline[name].abs().max(), name
