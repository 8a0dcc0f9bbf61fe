"""Settings that cannot be carried out are refused by name, with what they may be."""

from __future__ import annotations

import pytest
import torch

from mergetool.errors import RecipeError
from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES
from tests.optim.scenes import deltas, parameters, run


def test_alpha_total_is_shared_among_the_merges_of_the_run() -> None:
    ours = parameters()
    for every, merges in ((1, 20), (6, 3)):
        optimizer = OnDARE(ours, alpha_total=0.3, total_steps=20, every=every, reference=deltas())
        assert optimizer.param_groups[0]["alpha"] == pytest.approx(0.3 / merges)
        assert optimizer.planned(20).merges == merges
        assert optimizer.planned(20).alpha == pytest.approx(0.3)
        run(optimizer, ours, 20)
        assert optimizer.merged == pytest.approx(optimizer.planned(20))


REFUSED = [
    ({"density": 0.0}, "density"),
    ({"density": 1.5}, "density"),
    ({"alpha": -0.1}, "alpha"),
    ({"alpha": 0.1}, "no reference"),
    ({"every": 0}, "every"),
    ({"every": 2.0}, "every"),
    ({"rescale": "biased"}, "rescale.*did you mean 'unbiased'"),
    ({"tau_mask": "once"}, "tau_mask"),
    ({"clip": 0.0}, "clip"),
    ({"lr": -1.0}, "lr"),
    ({"eps": 0.0}, "eps"),
    ({"betas": (0.9, 1.0)}, "betas"),
    ({"weight_decay": -1.0}, "weight_decay"),
    ({"rounding": "up"}, "rounding"),
    ({"moments": "bf16"}, "moments"),
    ({"alpha_total": 0.1}, "total_steps"),
    ({"alpha_total": 0.1, "total_steps": 3, "every": 5}, "never merges"),
    ({"alpha_total": 0.1, "alpha": 0.1, "total_steps": 3}, "both"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED)
def test_settings_that_cannot_be_carried_out_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        OnDARE(parameters(), **settings)
    assert caught.value.hint


def test_onties_refuses_unbiased_and_onlinemerge_unknown_settings() -> None:
    with pytest.raises(RecipeError, match="OnTIES"):
        OnTIES(parameters(), rescale="unbiased")
    with pytest.raises(RecipeError, match="did you mean 'density'"):
        OnlineMerge(torch.optim.SGD(parameters(), lr=1.0), densty=0.5)


def test_a_method_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no method 'tie'.*did you mean 'ties'"):
        OnlineMerge(torch.optim.SGD(parameters(), lr=1.0), method="tie")


def test_onlinear_keeps_every_entry() -> None:
    with pytest.raises(RecipeError, match="OnLinear keeps every entry"):
        OnlineMerge(torch.optim.SGD(parameters(), lr=1.0), method="linear", density=0.5)
    assert OnLinear(parameters()).param_groups[0]["density"] == 1.0
