"""What is added for the rows that should stay is what plain torch adds, row by row and without padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergetool.activations.answers import batch_of, nll
from mergetool.align.row_terms import kl
from mergetool.align.stay import Stay, tokenised
from mergetool.data.texts import completions
from mergetool.data.tokens import Coded
from mergetool.errors import RecipeError
from tests.align.tiny import plain_nll

ROWS = {"data": "stay.jsonl"}


def plain_kl(model: Any, reference: Any, row: Coded) -> torch.Tensor:
    before, now = (one(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1) for one in (reference, model))
    places = range(max(row.start, 1) - 1, len(row.ids) - 1)
    return sum((before[at].exp() * (before[at] - now[at])).sum() for at in places)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def close(a: dict, b: dict, atol: float = 1e-6) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], rtol=1e-4, atol=atol) for n in a)


def moved(model: Any, by: float = 0.05) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=by)


@pytest.mark.parametrize("method", ["replay", "lwf"])
def test_a_steps_gradient_is_the_alignments_plus_that_of_each_row_computed_alone(triple, trainer, method: str) -> None:
    """Over two micro steps, each with rows of its own."""
    weight, size, steps = 2.5, 3, 2
    asked = {"method": method, "rows": ROWS, "lambda": weight, "batch_size": size, "seed": 5}
    ours, stay = trainer(asked, gradient_accumulation_steps=steps)
    plain, _ = trainer({"method": "adamw"}, gradient_accumulation_steps=steps)
    reference = AutoModelForCausalLM.from_pretrained(triple / "sft")
    batches = list(plain.get_train_dataloader())[:steps]
    for one in (ours, plain):
        moved(one.model)
        for batch in batches:
            one.training_step(one.model, dict(batch), None)
    assert not close(gradients(ours.model), gradients(plain.model))
    for step in range(steps):
        drawn = stay.drawn(step * size, size, seed=5)
        tokens = sum(len(row.ids) - row.start for row in drawn)
        for row in drawn:
            own = plain_nll(plain.model, row) if method == "replay" else plain_kl(plain.model, reference, row)
            (weight * own / tokens / steps).backward()
    assert close(gradients(ours.model), gradients(plain.model))


def test_the_batches_are_those_of_the_micro_steps_wherever_the_run_begins(trainer) -> None:
    ours, stay = trainer({"method": "replay", "rows": ROWS, "batch_size": 3}, gradient_accumulation_steps=2)
    asked: list[int] = []

    class Noted(Stay):
        def batch(self, number: int, *args: Any) -> Any:
            asked.append(number)
            return super().batch(number, *args)

    ours.row_term.stay = Noted(stay.rows)
    for step, micros in ((3, 2), (4, 1), (5, 2)):
        ours.state.global_step = step
        for _ in range(micros):
            ours.row_term.backward(ours, ours.model)
    assert asked == [6, 7, 8, 10, 11]


def test_lwf_is_silent_at_the_sft_model_and_torchs_kl_beside_it(triple) -> None:
    reference, model = (AutoModelForCausalLM.from_pretrained(triple / "sft") for _ in range(2))
    reference.requires_grad_(False)
    rows = completions(triple / "stay.jsonl")
    stay = tokenised(rows, AutoTokenizer.from_pretrained(triple / "sft"), 32)
    batch = batch_of(stay.rows)
    kl(model, batch, reference).backward()
    assert max(float(g.abs().max()) for g in gradients(model).values()) < 1e-6
    moved(model)
    value = kl(model, batch, reference).detach()
    assert float(value) == pytest.approx(float(_kl_of(reference, model, batch).detach()), rel=1e-5)
    assert float(value) > 0.1


def _kl_of(reference: Any, model: Any, batch: Any) -> torch.Tensor:
    before, now = (
        torch.distributions.Categorical(logits=one(batch.ids, attention_mask=batch.mask).logits[:, :-1])
        for one in (reference, model)
    )
    return torch.distributions.kl_divergence(before, now)[batch.scored].sum()


def test_nll_is_the_sum_over_the_answers_tokens(triple) -> None:
    model = AutoModelForCausalLM.from_pretrained(triple / "sft")
    rows = (Coded((4, 5, 6, 7, 8), 2), Coded((9, 10), 0))
    assert float(nll(model, batch_of(rows))) == pytest.approx(sum(float(plain_nll(model, row)) for row in rows), rel=1e-5)


def test_a_term_that_is_no_number_ends_the_run_with_its_step(trainer) -> None:
    ours, _ = trainer({"method": "replay", "rows": ROWS})
    moved(ours.model, by=float("inf"))
    with pytest.raises(RecipeError, match=r"the term of replay is nan at step 1; lower training\.learning_rate"):
        ours.row_term.backward(ours, ours.model)


def test_its_mean_is_logged_without_the_weight(trainer) -> None:
    ours, stay = trainer({"method": "replay", "rows": ROWS, "lambda": 7, "batch_size": 10})
    ours.row_term.backward(ours, ours.model)
    with torch.no_grad():
        mean = float(nll(ours.model, batch_of(stay.rows))) / stay.tokens
    assert ours.row_term.logged(ours.accelerator) == {"rows_loss": pytest.approx(mean, rel=1e-5)}
    assert ours.row_term.logged(ours.accelerator) == {}
