"""Which road a tensor takes, condition by condition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mergetool.methods import ONLINE
from mergetool.optim.operators import operator
from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.road import OwnStep, Road, own_step, road
from mergetool.optim.sharding import Shard

WHOLE = Shard((4, 3), (4, 3), (0, 0))
COLUMNS = Shard((4, 6), (4, 3), (0, 3))
ROWS = Shard((8, 3), (4, 3), (4, 0), groups=("other ranks",))


def part(group: dict[str, Any], shard: Shard = WHOLE, dtype: torch.dtype = torch.float32, moments: Any = None) -> AdamPart:
    p = torch.nn.Parameter(torch.zeros(shard.extent, dtype=dtype))
    p.grad = torch.zeros_like(p)
    state = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(shard.extent, dtype=moments or dtype)}
    return AdamPart.of(p, state | {"exp_avg_sq": state["exp_avg"].clone()}, group, Binding("w", shard))


def taken(method: str, due: bool = True, compiles: bool = True, shard: Shard = WHOLE, dtype: Any = torch.float32, **given: Any):
    group = ONLINE[method].settings | {"lr": 1e-3, "alpha": 0.1, **given}
    return road(operator(method), group, part(group, shard, dtype), due=due, compiles=compiles)


@pytest.mark.parametrize(
    ("wanted", "method", "given"),
    [
        (Road.ENTRIES, "dare", {"density": 0.01}),
        (Road.ENTRIES, "ties", {"density": 0.01, "every": 5, "rescale": "l1"}),
        (Road.ONE_PASS, "dare", {"density": 0.5}),
        (Road.ONE_PASS, "dare", {"density": 0.5, "shard": ROWS}),
        (Road.ONE_PASS, "dare", {"density": 1.0}),
        (Road.ONE_PASS, "ties", {"density": 1 / 32, "every": 5}),
        (Road.BLOCKS, "ties", {"density": 0.5, "shard": ROWS}),  # its thresholds are exchanged
        (Road.BLOCKS, "dare", {"density": 0.5, "shard": COLUMNS}),
        (Road.BLOCKS, "dare", {"density": 0.5, "compiles": False}),
        (Road.BLOCKS, "dare", {"density": 0.5, "rescale": "l1"}),
        (Road.BLOCKS, "dare", {"density": 0.5, "dtype": torch.float64}),
        (Road.PLAIN, "dare", {"density": 0.5, "every": 5, "due": False}),
        (Road.MOMENTS, "dare", {"density": 0.5, "due": False}),
        (Road.PLAIN, "dare", {"density": 1.0, "alpha": 0.0}),
        (Road.PLAIN, "ties", {"density": 1.0, "alpha": 0.0, "every": 5}),
        (Road.ONE_PASS, "dare", {"density": 1.0, "alpha": 0.0, "clip": 1.0}),
        (Road.TOWARD, "linear", {}),
        (Road.TOWARD, "linear", {"every": 5}),
        (Road.PLAIN, "linear", {"due": False}),
    ],
)
def test_each_condition_leads_to_its_road(wanted: Road, method: str, given: dict[str, Any]) -> None:
    assert taken(method, **given) is wanted


@pytest.mark.parametrize(
    ("wanted", "dtype", "moments", "given"),
    [
        (OwnStep.FUSED, torch.float32, torch.float32, {}),
        (OwnStep.FUSED, torch.bfloat16, torch.bfloat16, {"rounding": "nearest"}),
        (OwnStep.ONE_PASS, torch.bfloat16, torch.bfloat16, {}),
        (OwnStep.ONE_PASS, torch.bfloat16, torch.float32, {"rounding": "nearest"}),
        (OwnStep.BLOCKS, torch.float16, torch.float32, {}),
        (OwnStep.MOMENTS, torch.bfloat16, torch.float32, {"lr": 0.0}),
    ],
)
def test_adamws_own_step_is_torchs_kernel_where_that_is_exact(
    wanted: OwnStep, dtype: torch.dtype, moments: torch.dtype, given: dict[str, Any]
) -> None:
    group = ONLINE["dare"].settings | {"lr": 1e-3, **given}
    assert own_step(group, part(group, WHOLE, dtype, moments), compiles=True) is wanted
