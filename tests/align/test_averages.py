"""Each average is that of its paper, seen from a walk of weights: torch's and TRL's own are the oracles."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mergetool.align.averages import Average, Bema, ElasticReset, Ema, Sma
from mergetool.errors import RecipeError

STEPS = 12


class Walker(torch.nn.Module):
    """A model that TRL's callback can copy: it is made of its config."""

    def __init__(self, config: int) -> None:
        super().__init__()
        self.config = config
        self.weight = torch.nn.Parameter(torch.zeros(config))


def walked(rule: Average, look=lambda model, t: None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What a rule keeps after a random walk of a vector, and where the walk ended."""
    torch.manual_seed(0)
    model = Walker(50)
    model.weight.data.normal_()
    look(model, 0)
    kept = rule.begin(model.weight.detach())
    for t in range(1, STEPS + 1):
        model.weight.data.add_(torch.randn(50))
        rule.step(kept, model.weight.detach(), t, STEPS)
        look(model, t)
    return kept, model.weight.detach()


@pytest.mark.parametrize(("since", "every"), [(0, 1), (4, 1), (0.5, 2), (2, 3)])
def test_sma_is_torchs_averaged_model(since: float, every: int) -> None:
    from torch.optim.swa_utils import AveragedModel

    start, averaged = round(since * STEPS) if since < 1 else since, []

    def look(model: Walker, t: int) -> None:
        if t == 0:
            averaged.append(AveragedModel(model))
        elif t > start and (t - start) % every == 0:
            averaged[0].update_parameters(model)

    kept, _ = walked(Sma(since=since, every=every), look)
    torch.testing.assert_close(kept["sma"], averaged[0].module.weight.data, rtol=0, atol=1e-6)


def test_ema_is_torchs_averaged_model() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    averaged = []

    def look(model: Walker, t: int) -> None:
        if t == 0:
            averaged.append(AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)))
        averaged[0].update_parameters(model)  # its first look is a copy

    kept, _ = walked(Ema(coefficient=0.1), look)
    torch.testing.assert_close(kept["ema"], averaged[0].module.weight.data, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"update_freq": 1}),
        ({"every": 3, "since": 2}, {"update_freq": 3, "update_after": 2}),
        (
            {"every": 2, "lag": 3, "multiplier": 2, "ema_power": 0.7, "bias_power": 0.4},
            {"update_freq": 2, "lag": 3, "multiplier": 2, "ema_power": 0.7, "bias_power": 0.4},
        ),
    ],
)
def test_bema_is_trls(ours: dict, theirs: dict) -> None:
    from trl import BEMACallback

    callback = BEMACallback(**theirs)

    def look(model: Walker, t: int) -> None:
        state = SimpleNamespace(global_step=t)
        if t == 0:
            callback.on_train_begin(None, state, None, model=model)
        else:
            callback.on_step_end(None, state, None, model=model)

    kept, _ = walked(Bema(**ours), look)
    torch.testing.assert_close(kept["bema"], callback.running_model.weight.data, rtol=0, atol=1e-5)


def test_bema_without_correction_is_ema_and_with_all_of_it_of_weight_one_the_weights() -> None:
    kept, last = walked(Bema(bias_power=1e3))
    assert torch.equal(kept["bema"], kept["ema"])
    kept, last = walked(Bema(ema_power=0, bias_power=1e3))
    torch.testing.assert_close(kept["bema"], last)


def test_elastic_reset_goes_to_the_average_and_begins_it_at_the_start() -> None:
    torch.manual_seed(0)
    start = torch.randn(50)
    ema, theta = start.clone(), start.clone()
    torch.manual_seed(0)
    torch.randn(50)
    for t in range(1, STEPS + 1):
        theta = theta + torch.randn(50)
        ema = 0.8 * ema + 0.2 * theta
        if t % 5 == 0:
            theta, ema = ema, start
    kept, last = walked(ElasticReset(coefficient=0.2, every=5))
    torch.testing.assert_close(last, theta)
    torch.testing.assert_close(kept["ema"], ema)


def test_a_run_that_ends_before_the_first_look_is_refused() -> None:
    with pytest.raises(RecipeError, match="first look at the weights would be at step 15, and the run has 12"):
        walked(Sma(since=10, every=5))
    assert (Sma(every="total").places(12), Sma(since=0.25, every=2).places(12)) == ((0, 12), (3, 2))


def test_what_is_told_names_the_steps_that_are_in_it() -> None:
    assert Sma(since=4).told(12, 12) == "the mean of the weights of steps 5 to 12"
    assert Sma(since=0.5, every=4).told(12, 12) == "the mean of the weights of step 10"
    assert Sma(since=8).told(5, 12) == "the mean of the weights of step 5", "of a best step before it begins"
    assert Bema(every=4).told(10, 12).endswith("of every 4 steps from 4 to 8")
    assert ElasticReset(every=5).told(12, 12).startswith("the weights after 2 resets")
