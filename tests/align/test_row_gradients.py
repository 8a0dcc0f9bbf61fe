"""Steps of ogpsa are what plain torch gives, and Adam's update is orthogonal to the gradient of every set of rows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from mergetool.align import align_recipe
from mergetool.align.check import check_align
from mergetool.align.row_gradients import mean_gradient
from mergetool.data.tokens import Coded
from mergetool.errors import DataError, RecipeError
from tests.align.tiny import make_stay, plain_nll, recipe_text

WORDS = {"dog": "no it is big", "hill": "it is a small hill"}


@pytest.fixture(scope="module")
def sets(triple, tmp_path_factory) -> list[str]:
    """Three files of rows, each with answers of its own."""
    folder = tmp_path_factory.mktemp("sets")
    make_stay(folder / "cat.jsonl", 5)
    for thing, answer in WORDS.items():
        rows = [{"prompt": f"is the {thing} {i} ", "completion": answer + " sorry" * (i % 2)} for i in range(4)]
        (folder / f"{thing}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(folder / f"{thing}.jsonl") for thing in ("cat", *WORDS)]


def merging(sets: list[str], **more: Any) -> dict[str, Any]:
    return {"method": "ogpsa", "rows": {"data": sets}, "every": 2, "batch_size": 3, **more}


def plain_gradient(model: Any, rows: tuple[Coded, ...]) -> torch.Tensor:
    """Of the mean over the tokens of all rows, each row by itself; one long vector, fp64."""
    mean = sum(plain_nll(model, row) for row in rows) / sum(row.length for row in rows)
    return flat(torch.autograd.grad(mean, list(model.parameters())))


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([one.detach().reshape(-1).double() for one in tensors])


class Noted(TrainerCallback):
    """Keeps the weights and the data of every step."""

    def __init__(self, trainer: Any) -> None:
        self.weights: list[list[torch.Tensor]] = []
        self.batches: list[dict[str, Any]] = []
        step = trainer.training_step

        def noted(model: Any, inputs: Any, *rest: Any) -> Any:
            self.batches.append(copy.deepcopy(dict(inputs)))
            return step(model, inputs, *rest)

        trainer.training_step = noted
        trainer.add_callback(self)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append([p.detach().clone() for p in model.parameters()])

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append([p.detach().clone() for p in model.parameters()])


def at(model: Any, weights: list[torch.Tensor]) -> Any:
    with torch.no_grad():
        for p, value in zip(model.parameters(), weights, strict=True):
            p.copy_(value)
    return model


def test_a_sets_gradient_is_that_of_its_rows_computed_one_by_one_however_they_are_batched(triple, trainer, sets) -> None:
    _, stay = trainer(merging(sets))
    model = AutoModelForCausalLM.from_pretrained(triple / "sft")
    named = dict(model.named_parameters())
    assert [len(rows) for rows in stay.sets] == [5, 4, 4]
    for rows in stay.sets:
        wanted = plain_gradient(model, rows)
        for size in (1, 3, 8):
            found = mean_gradient(model, named, rows, size)
            assert torch.allclose(flat(found.values()), wanted, rtol=0, atol=1e-6 * float(wanted.norm()))
    assert all(p.grad is None for p in named.values())


def test_three_steps_with_projected_gradients_are_those_of_a_loop_of_plain_torch(trainer, sets) -> None:
    """With two micro steps each, clipping, decay, and U computed anew at the third."""
    fixed = {"max_steps": 3, "gradient_accumulation_steps": 2, "lr_scheduler_type": "constant", "max_grad_norm": 0.5}
    fixed |= {"weight_decay": 0.1, "per_device_train_batch_size": 2, "adam_epsilon": 1e-4}  # above the noise of sums
    ours, stay = trainer(merging(sets[:2]), **fixed)
    plain, _ = trainer({"method": "adamw"}, **fixed)
    noted = Noted(ours)
    ours.train()
    assert ours.row_gradients.computed == 2
    model = plain.model
    parameters = list(model.parameters())
    groups = [[p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() == 1]]
    decays = [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.1, 0.0), strict=True)]
    adam = torch.optim.AdamW(decays, lr=1e-3, eps=1e-4)
    basis = torch.empty(0)
    for step in range(3):
        adam.zero_grad()
        for batch in noted.batches[2 * step : 2 * step + 2]:
            plain.training_step(model, batch, None)
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        if step % 2 == 0:
            basis, _ = torch.linalg.qr(torch.stack([plain_gradient(model.eval(), rows) for rows in stay.sets], dim=1))
        gradient = flat(p.grad for p in parameters)
        gradient -= basis @ (basis.T @ gradient)
        for p, part in zip(parameters, gradient.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p).float()
        adam.step()
        moved = flat(parameters) - flat(noted.weights[0])
        assert torch.allclose(flat(noted.weights[step + 1]) - flat(noted.weights[0]), moved, rtol=0, atol=2e-6)
        assert float(moved.norm()) > 1e-2


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_update_is_orthogonal_to_every_sets_gradient_at_every_step_and_decay_is_left_alone(trainer, sets, decay) -> None:
    """The gradients are those of the last renewal, at steps 1 and 4."""
    ours, stay = trainer(merging(sets, project="update", every=3), max_steps=5, weight_decay=decay)
    plain, _ = trainer({"method": "adamw"})
    noted = Noted(ours)
    rates: list[float] = []
    ours.create_optimizer_and_scheduler(5)
    ours.optimizer.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    ours.train()
    decays = flat(torch.full_like(p, decay if p.dim() > 1 else 0.0) for p in ours.model.parameters())
    gradients: list[torch.Tensor] = []
    for step in range(5):
        before, after = flat(noted.weights[step]), flat(noted.weights[step + 1])
        if step % 3 == 0:
            gradients = [plain_gradient(at(plain.model, noted.weights[step]).eval(), rows) for rows in stay.sets]
        update = after - before * (1 - rates[step] * decays)
        assert float(update.norm()) > 1e-3
        for gradient in gradients:
            assert abs(float(gradient @ update)) <= 1e-6 * float(gradient.norm() * update.norm())
    assert ours.row_gradients.computed == 2
    shares = [line["projected"] for line in ours.state.log_history if "projected" in line]
    assert len(shares) == 5
    assert all(0 < share < 1 for share in shares)


def test_a_set_that_is_given_twice_adds_nothing(trainer, sets) -> None:
    ours, _ = trainer(merging([*sets[:2], sets[0]]), max_steps=1)
    ours.train()
    assert len(ours.row_gradients.span.basis) == 2


def test_the_mode_of_the_model_is_as_it_was_and_gradients_ignore_dropout(trainer, sets) -> None:
    ours, stay = trainer(merging(sets), max_steps=1)
    ours.model.config.attention_dropout = 0.5
    for module in ours.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    modes: list[bool] = []
    ours.create_optimizer_and_scheduler(1)
    ours.optimizer.register_step_pre_hook(lambda *_: modes.append(ours.model.training))
    start = [p.detach().clone() for p in ours.model.parameters()]
    ours.train()
    assert modes == [True]
    plain, _ = trainer({"method": "adamw"})
    for one in ours.row_gradients.span.basis[:1]:
        wanted = plain_gradient(at(plain.model, start).eval(), stay.sets[0])
        names = [name for name, _ in plain.model.named_parameters()]
        assert torch.allclose(flat(one[name] for name in names), wanted / wanted.norm(), atol=1e-5)


def test_what_the_recipe_cannot_mean_is_refused_by_name(triple, sets, trainer, tmp_path) -> None:
    def check(**parts: Any) -> dict[str, Any]:
        return check_align(align_recipe(recipe_text(triple, **parts), triple))

    facts = check(merging=merging(sets, project="update"))
    assert facts["row_gradients"] == {"sets": 3, "every": 2}
    assert facts["bytes_of_row_gradients"] == 4 * facts["model"]["parameters"] * (3 + 1)
    with pytest.raises(RecipeError, match="ogpsa needs to know what should stay"):
        check(merging={"method": "ogpsa"})
    with pytest.raises(RecipeError, match=r"merging\.every: .*'total' is no number; give one, such as 5"):
        check(merging=merging(sets, every="total"))
    with pytest.raises(RecipeError, match=r"merging\.project: update is exact in float32 alone"):
        check(merging=merging(sets, project="update"), dtype="bfloat16")
    check(merging=merging(sets, project="gradient"), dtype="bfloat16")
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "the cat " * 40, "completion": "yes"}) + "\n")
    with pytest.raises(DataError, match=r"long\.jsonl: no row has a token of an answer within the length"):
        trainer(merging([*sets, str(long)]))


def test_a_gradient_that_is_no_number_ends_the_run_with_its_step(trainer, sets) -> None:
    ours, _ = trainer(merging(sets))
    with torch.no_grad():
        next(ours.model.parameters()).fill_(float("nan"))
    ours.create_optimizer_and_scheduler(1)
    with pytest.raises(RecipeError, match=r"a gradient of ogpsa's rows is no number at step 1; lower"):
        ours.row_gradients.on_pre_optimizer_step(ours.args, ours.state, ours.control, ours.model, ours.optimizer)


def test_a_checkpoint_holds_the_basis_only_where_the_next_step_does_not_compute_it(trainer, sets) -> None:
    ours, _ = trainer(merging(sets, every=2), max_steps=4, save_steps=1, save_total_limit=9)
    ours.train()
    kept = {path.parent.name for path in Path(ours.args.output_dir).glob("checkpoint-*/row_gradients.safetensors")}
    assert kept == {"checkpoint-1", "checkpoint-3"}
