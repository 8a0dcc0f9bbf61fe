"""The operator of OnNullSpace: its blocks, and the tensors that it leaves alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.errors import RecipeError
from mergetool.ops.projector import ROWS
from mergetool.optim import OnlineMerge, OnNullSpace
from mergetool.optim.operators import operator
from mergetool.optim.sharding import Shard
from tests.optim.calibrations import calibration
from tests.optim.scenes import parameters, run, values

LR = 1e-3


@given(st.integers(1, 700), st.integers(1, 70), st.data())
def test_blocks_cover_what_a_rank_holds_and_end_where_the_whole_tensor_is_cut(
    rows: int, width: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, rows - 1))
    count = data.draw(st.integers(0, rows - first))
    shard = Shard((rows, width), (count, width), (first, 0))
    blocks = list(operator("null_space").blocks(shard, torch.device("cpu")))
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])][: len(blocks)]
    assert (blocks[-1][1] if blocks else 0) == count * width
    for start, stop in blocks:
        assert start < stop
        assert start % width == 0
        assert stop == count * width or (first + stop // width) % ROWS == 0


@pytest.mark.parametrize(
    ("settings", "projected"),
    [({"only": "layer"}, {"layer.weight"}), ({"skip": "embed,norm, scale"}, {"layer.weight"}), ({"skip": "layer"}, None)],
)
def test_tensors_that_are_not_chosen_take_adamws_own_step(settings: dict, projected: set[str] | None) -> None:
    ours, plain, all_of_them = parameters(), parameters(), parameters()
    run(OnNullSpace(ours, LR, calibration=calibration(), strength=1.0, **settings), ours, 3)
    run(OnNullSpace(all_of_them, LR, calibration=calibration(), strength=1.0), all_of_them, 3)
    run(torch.optim.AdamW([p for _, p in plain], lr=LR, weight_decay=0.0), plain, 3)
    mine, adamw, every = values(ours), values(plain), values(all_of_them)
    projected = set(mine) - {"layer.weight"} if projected is None else projected
    for name, value in mine.items():
        if name in projected:
            assert torch.equal(value, every[name]), name
            assert not torch.allclose(value, adamw[name], atol=1e-5), name
        else:
            assert torch.allclose(value, adamw[name], atol=1e-7), name


def test_around_another_optimizer_it_is_refused_by_name() -> None:
    ours = parameters()
    with pytest.raises(RecipeError, match="use OnNullSpace"):
        OnlineMerge(torch.optim.SGD(ours, lr=0.1), method="null_space")


@pytest.mark.parametrize(("setting", "value"), [("density", 0.5), ("alpha", 0.1), ("clip", 1.0)])
def test_a_group_cannot_ask_for_what_other_methods_do(setting: str, value: float) -> None:
    with pytest.raises(RecipeError, match=f"{setting} is {value}|no reference to merge"):
        OnNullSpace([{"params": parameters(), setting: value}], LR, calibration=calibration())
