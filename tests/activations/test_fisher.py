"""The Fisher information is the mean of each row's own squared gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mergetool.activations.fisher import add_squares, fisher_diagonal
from mergetool.data.tokens import Coded
from tests.activations.models import live

ROWS = [Coded((5, 6, 7, 8, 9), 2), Coded((11, 12, 13), 0), Coded((20, 21, 22, 23), 1), Coded((7, 8, 40), 2)]


def trained(family: str = "llama") -> Any:
    return live(family).requires_grad_(True)


def by_hand(model: Any, rows: Sequence[Coded]) -> dict[str, torch.Tensor]:
    """In fp64, a row at a time: the log-probability of an answer token by token, its gradient, the square."""
    model.double()
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in rows:
        model.zero_grad()
        log_p = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        sum(log_p[at - 1, row.ids[at]] for at in range(max(row.start, 1), len(row.ids))).backward()
        for name, p in model.named_parameters():
            found[name] += p.grad**2 / len(rows)
    return found


def test_it_is_the_mean_of_each_rows_squared_gradient_computed_alone() -> None:
    ticks: list[int] = []
    found, expected = fisher_diagonal(trained(), ROWS, ticks.append), by_hand(trained(), ROWS)
    assert ticks == [1, 2, 3, 4]
    assert found.keys() == expected.keys()
    for name, square in found.items():
        assert square.dtype == torch.float32
        assert torch.allclose(square.double(), expected[name], rtol=1e-3, atol=1e-6 * float(expected[name].max())), name
    model = trained()
    one = fisher_diagonal(model, ROWS[:1])
    assert all(p.grad is None for p in model.parameters())
    assert not torch.allclose(one["model.norm.weight"], found["model.norm.weight"])


def test_what_the_sums_leave_out_is_not_computed_and_the_rest_is_the_same() -> None:
    whole, model = fisher_diagonal(trained(), ROWS), trained()
    name = "model.layers.1.mlp.up_proj.weight"
    model.requires_grad_(False)
    dict(model.named_parameters())[name].requires_grad_(True)
    sums = {name: torch.zeros_like(whole[name])}
    assert list(add_squares(model, ROWS, sums)) == [1, 2, 3, 4]
    assert torch.equal(sums[name] / 4, whole[name])


def test_an_expert_that_no_token_is_sent_to_has_none() -> None:
    found = fisher_diagonal(trained("qwen3_moe"), [Coded((5, 6), 1)])["model.layers.0.mlp.experts.down_proj"]
    heard = found.flatten(1).sum(1) > 0
    assert heard.any()
    assert not heard.all()
