"""TRL's trainers with our optimizer in them, and with the few things that exact resume and plain errors ask for."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mergetool.align.averaging import averaging, moving_reference
from mergetool.align.baselines import weight_of_rows
from mergetool.align.drift import Drift
from mergetool.align.inputs import load_teacher
from mergetool.align.optimizer import Plan, groups_of, make_optimizer, merged_so_far
from mergetool.align.policy import head_of
from mergetool.align.recipe import AlignRecipe
from mergetool.align.reference_cache import key_of, with_reference
from mergetool.align.refusals import refusals
from mergetool.align.report import Report
from mergetool.align.reward import load_rewards
from mergetool.align.row_gradients import row_gradients
from mergetool.align.row_terms import RowTerm
from mergetool.align.stay import Stay
from mergetool.align.tokenised import lengths, rows_of
from mergetool.align.training import check_batch
from mergetool.align.watch import Stop, watcher
from mergetool.errors import DataError, RecipeError


def make_trainer(
    recipe: AlignRecipe,
    config: Any,
    model: Any,
    tokenizer: Any,
    rows: dict[str, Any],
    paths: tuple[Path | None, Path],
    stop: Stop,
    report: Report,
    stay: Stay | None = None,
    fisher: Path | None = None,
) -> Any:
    """TRL's trainer for the recipe's algorithm.

    Args:
        recipe, config: the recipe, and TRL's config made of it.
        model: theta_s, to be trained in place.
        tokenizer: its tokenizer.
        rows: `train` and perhaps `eval`, as datasets.
        paths: the directories of theta_b and theta_s.
        stop: looked at after every step.
        report: told of every step, log line and checkpoint.
        stay: the rows that should stay, where the method needs them.
        fisher: the file of theta_s' Fisher information on them, where the method reads it.

    Raises:
        DataError: no row is shorter than max_length.
        RecipeError: TRL refuses the combination of settings, or the method cannot be served by the backend.
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    algorithm, merging = recipe.algorithm_row, recipe.merging
    kind: Any = _online(algorithm.trainer_class())
    # TRL's constructor already prepares the data, so what the methods need must be there before it.
    trainer = kind.__new__(kind)
    trainer.recipe, trainer.paths, trainer.told, trainer.plan = recipe, paths, report, None
    trainer.fisher, trainer.row_term = fisher, None
    before = copy.deepcopy(model) if merging.baseline and merging.baseline.reference else None
    more: dict[str, Any] = {"reward_funcs": load_rewards(recipe)} if algorithm.rewarded else {}
    if algorithm.taught:
        more["teacher_model"] = load_teacher(recipe, paths[1], config.device)
    baseline = merging.baseline
    rule = baseline.averaged(merging) if baseline else None
    trainer.averaging = averaging(rule) if rule is not None else None
    trainer.row_gradients = row_gradients(recipe, config, model, stay, report)
    trainer.drift = Drift(paths[1])
    if baseline and baseline.adapter:
        trainer.drift = None  # theta_s has no adapters to be far from
        more["peft_config"] = baseline.adapter(merging, algorithm.task)
    # The callback that marks a checkpoint as whole comes last.
    moving = moving_reference() if getattr(config, "sync_ref_model", False) else None
    callbacks = [trainer.averaging, moving, trainer.row_gradients, watcher(stop, report, merging.method)]
    callbacks = [each for each in callbacks if each is not None]
    with refusals(config, recipe.training):  # TRL refuses some combinations only here
        trainer.__init__(
            model=model,
            args=config,
            train_dataset=rows["train"],
            eval_dataset=rows.get("eval"),
            processing_class=tokenizer,
            callbacks=callbacks,
            **more,
        )
    if moving is not None:
        moving.model = trainer.ref_model
    if stay is not None:
        trainer.row_term = _row_term(recipe, trainer, stay, before)
    _tell_lengths(trainer, config)
    check_batch(algorithm, config, len(trainer.train_dataset))
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)  # stdout belongs to the command line
    return trainer


def _tell_lengths(trainer: Any, config: Any) -> None:
    """Reports the rows of trainers that tokenise them without `_prepare_dataset`, which tells of its own."""
    for name, data in (("train", trainer.train_dataset), ("eval", trainer.eval_dataset)):
        if data is not None and "chosen_input_ids" in data.column_names:
            trainer.told("data", {"name": name, "rows": len(data), **lengths(data, config.max_length)})


def _row_term(recipe: AlignRecipe, trainer: Any, stay: Stay, reference: Any) -> RowTerm | None:
    """What the method adds to the loss for the rows that should stay; None where it uses them otherwise.

    Raises:
        RecipeError: the backend cannot serve a second backward pass, or ranks do not hold theta_s.
    """
    merging, name = recipe.merging, recipe.merging.method
    if merging.baseline is None or merging.baseline.term is None:
        return None
    if trainer.is_deepspeed_enabled:
        raise RecipeError(f"merging.method: {name} takes two backward passes a step, DeepSpeed one", "shard with FSDP2")
    if reference is not None:
        reference = _beside(reference, trainer, name)
    size = merging.batch_size or trainer.args.per_device_train_batch_size
    return RowTerm(name, merging.baseline.term, weight_of_rows(merging), stay, size, merging.seed or 0, reference)


def _beside(model: Any, trainer: Any, name: str) -> Any:
    """theta_s beside the policy, sharded where the policy is, as TRL keeps a reference model."""
    from trl.models.utils import prepare_fsdp

    model.eval().requires_grad_(False)
    if not trainer.is_fsdp_enabled:
        return trainer.accelerator.prepare_model(model, evaluation_mode=True)
    if trainer.accelerator.state.fsdp_plugin.cpu_ram_efficient_loading:
        raise RecipeError(
            f"merging.method: {name} needs the SFT model on every rank, and fsdp_cpu_ram_efficient_loading loads it on one",
            "set fsdp_cpu_ram_efficient_loading: false in accelerate's configuration",
        )
    return prepare_fsdp(model, trainer.accelerator)


def _online(base: type) -> type:
    """A TRL trainer class with our optimizer."""

    class OnlineTrainer(base):
        plan: Plan | None
        fisher: Path | None
        row_term: RowTerm | None
        averaging: Any

        @property
        def average(self) -> Any:
            """The average that is published in place of the weights that are trained; None where these are."""
            return self.averaging if self.averaging is not None and self.averaging.rule.published else None

        def create_optimizer(self, model: Any = None) -> Any:
            """Groups as Trainer makes them (no decay of norms and biases), but named: masks and deltas go by name.

            The head of a reward model, which theta_s has not, has groups of its own.
            """
            from mergetool.optim.names import canonical

            if self.optimizer is None:
                model = self.model if model is None else model
                decays = set(self.get_decay_parameter_names(model))
                apart = head_of(model, self.recipe.algorithm_row)
                named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
                trunk, head = (
                    groups_of([(n, p) for n, p in named if (canonical(n) in apart) is new], decays, self.args.weight_decay)
                    for new in (False, True)
                )
                base, sft = self.paths
                self.optimizer, plan = make_optimizer(
                    self.recipe, trunk, self.state.max_steps, self.args, base, sft, self.fisher, self.told, head
                )
                self.plan = plan
                self.told("plan", {"steps": self.state.max_steps, **asdict(plan)})
            return self.optimizer

        def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
            """As Trainer's, but a run resumed from its last checkpoint in mid-epoch takes no step too many."""
            if self.state.global_step >= self.state.max_steps:
                self.control.should_training_stop = True
                return None
            return super()._run_epoch(*args, **kwargs)

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            """As TRL's, but a loss that is no number ends the run: every step after it would be lost."""
            loss = super().training_step(model, inputs, *args, **kwargs)
            value = float(loss)
            if not math.isfinite(value):
                rows = ", ".join(map(str, rows_of(inputs, self.train_dataset))) or "unknown"
                raise RecipeError(
                    f"training: the loss is {value} at step {self.state.global_step + 1}, on usable rows {rows}",
                    "lower training.learning_rate, or train in float32; the last checkpoint is kept",
                )
            return loss if self.row_term is None else loss + self.row_term.backward(self, model)

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            """As TRL's, with how much of the SFT delta is merged so far and how far the weights have moved by layer."""
            if self.drift is not None and "loss" in logs:
                layers = self.drift.layers(self.model)
                logs["drift"] = math.hypot(*layers.values())
                logs |= {f"drift/{part.replace(' ', '_')}": distance for part, distance in layers.items()}
            if self.row_term is not None and "loss" in logs:
                logs |= self.row_term.logged(self.accelerator)
            if self.row_gradients is not None and "loss" in logs:
                logs |= self.row_gradients.logged()
            if self.plan is not None and self.plan.merges and self.recipe.merging.adds and "loss" in logs:
                logs["merged_total"] = merged_so_far(self.optimizer, self.plan.method)
            super().log(logs, start_time)

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *rest: Any) -> Any:
            prepared = super()._prepare_dataset(dataset, processing_class, args, *rest)
            name = rest[-1]  # "train" or "eval"; SFT's trainer has two more arguments before it
            told = lengths(prepared, args.max_length)
            if len(prepared) == 0:
                raise DataError(
                    f"{name} data: no row has a prompt shorter than {args.max_length} tokens", "raise data.max_length"
                )
            packed = len(rest) > 1 and bool(rest[0])  # SFT's trainer says here whether rows are put together
            become = {"packed": len(dataset)} if packed else {"too_long": len(dataset) - len(prepared)}
            self.told("data", {"name": name, "rows": len(prepared), **become, **told})
            return prepared

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            """As TRL's, but kept on disk by content. With several ranks it is computed: they must not disagree."""
            compute = functools.partial(super()._precompute_ref_logps, dataset, name, batch_size)
            if self.accelerator.num_processes > 1:
                return compute()
            about = {key: getattr(self.args, key, None) for key in ("max_length", "ld_alpha", "bf16", "fp16")}
            about |= {
                "weights": self._precompute_model_hash,
                "batch": batch_size,
                "trainer": base.__name__,
                "device": self.accelerator.device.type,
                "dtype": str(self.model.dtype),
            }
            found, cached = with_reference(dataset, key_of(dataset, about), compute)
            self.told("reference", {"name": name, "cached": cached})
            return found

        def evaluate(self, *args: Any, **kwargs: Any) -> Any:
            """As Trainer's, but of the weights that would be published: of an average, the average."""
            if self.average is None or not self.is_in_train:
                return super().evaluate(*args, **kwargs)
            with self.average.in_place(self.model):
                return super().evaluate(*args, **kwargs)

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """None beside checkpoints: the result gets ours."""

        def _send_telemetry(self) -> None:
            """None: training on this machine is nobody else's business."""

    OnlineTrainer.__name__ = f"Online{base.__name__}"
    return OnlineTrainer
