"""What OnDARE, OnTIES and OnLinear continue from: AdamW's moments in the types that the kernels take, and nothing else."""

from __future__ import annotations

import pytest
import torch

from mergetool.errors import CheckpointError
from mergetool.optim import OnDARE
from mergetool.optim.adamw_state import adamw_settings, adamw_state, moment_type

WIDE, NARROW = torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.bfloat16)


def state(dtype: torch.dtype = torch.float32, **more: object) -> dict:
    return {
        "step": torch.tensor(4.0),
        "exp_avg": torch.ones(3, 2, dtype=dtype),
        "exp_avg_sq": torch.ones(3, 2, dtype=dtype),
        **more,
    }


@pytest.mark.parametrize(
    ("parameter", "moments", "kept"),
    [(WIDE, "float32", torch.float32), (WIDE, "parameter", torch.float32), (NARROW, "float32", torch.float32),
     (NARROW, "parameter", torch.bfloat16), (WIDE.double(), "float32", torch.float64)],
)  # fmt: skip
@pytest.mark.parametrize("saved", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_moments_have_the_type_that_a_step_takes_whatever_they_were_saved_in(
    parameter: torch.Tensor, moments: str, kept: torch.dtype, saved: torch.dtype
) -> None:
    assert moment_type(parameter.dtype, moments) == kept
    found = adamw_state(state(saved, anchor=torch.zeros(3, 2)), parameter, moments, "w")
    assert {found["exp_avg"].dtype, found["exp_avg_sq"].dtype} == {kept}
    assert found["anchor"].dtype == parameter.dtype
    fresh = torch.nn.Parameter(parameter.clone())
    fresh.grad = torch.ones_like(fresh)
    optimizer = OnDARE([fresh], density=0.5, moments=moments, compile=False)
    optimizer.step()
    optimizer.state[fresh] = found
    optimizer.step()


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (state() | {"mu_product": 1.0}, "has mu_product, which AdamW has not"),
        ({"step": 1, "exp_avg": torch.zeros(3, 2)}, "has no exp_avg_sq"),
        (state(merge_step=torch.tensor(3.0)), "merge_step of w is 3, below its 4 steps"),
        (state(anchor_decay=torch.tensor(float("nan"))), "anchor_decay of w is nan"),
    ],
)
def test_what_is_missing_or_too_much_is_named(damaged: dict, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        adamw_state(damaged, WIDE, "float32", "w")


def test_a_parameter_without_a_state_has_none() -> None:
    assert adamw_state({}, WIDE, "float32", "w") == {}


def test_torchs_flags_do_not_become_settings_of_ours() -> None:
    group = torch.optim.AdamW([torch.nn.Parameter(WIDE)], lr=0.5).state_dict()["param_groups"][0]
    found = adamw_settings(group | {"initial_lr": 1.0})
    assert set(found) == {"lr", "betas", "eps", "weight_decay", "params", "initial_lr", "merges", "merged_alpha"}
