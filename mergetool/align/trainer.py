"""TRL's trainers with our optimizer in them, and with the few things that exact resume and plain errors ask for."""

from __future__ import annotations

import functools
import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mergetool.align.baselines import COEFFICIENT, RANK, adapter, average
from mergetool.align.moved import Moved
from mergetool.align.optimizer import Plan, make_optimizer, merged_so_far
from mergetool.align.recipe import SAMPLING, AlignRecipe
from mergetool.align.reference_cache import key_of, with_reference
from mergetool.align.reward import best_of_group, load_rewards
from mergetool.align.training import TRAINERS, first_line, updates_per_sampling
from mergetool.align.workspace import mark_complete
from mergetool.errors import DataError, RecipeError
from mergetool.methods import TRAININGS

Report = Callable[[str, dict[str, Any]], None]
"""Called with an event's name and its facts: rows, data, reference, preview, plan, resume,
step, log, checkpoint, result."""


class Stop:
    """Set by the first Ctrl-C (or SIGTERM); the run then writes a checkpoint after its current step."""

    asked = False


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """The first signal asks for a stop; a second one interrupts at once. Only the main thread may catch signals."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_trainer(
    recipe: AlignRecipe,
    config: Any,
    model: Any,
    tokenizer: Any,
    rows: dict[str, Any],
    paths: tuple[Path | None, Path],
    stop: Stop,
    report: Report,
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

    Raises:
        DataError: no row is shorter than max_length.
        RecipeError: TRL refuses the combination of settings.
    """
    import trl
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    kind = getattr(trl, TRAINERS[recipe.algorithm][1])
    kind = _online(_best_of_n(kind) if recipe.algorithm == "raft" else kind)
    # TRL's constructor already prepares the data, so what the methods need must be there before it.
    trainer = kind.__new__(kind)
    trainer.recipe, trainer.paths, trainer.told, trainer.plan = recipe, paths, report, None
    merging, row, more = recipe.merging, TRAININGS[recipe.merging.method], {}
    trainer.average = average(merging.coefficient or COEFFICIENT) if row.average else None
    if recipe.algorithm in SAMPLING:
        more["reward_funcs"] = load_rewards(recipe)
    trainer.moved = None if row.adapter else Moved(paths[1])
    if row.adapter:
        more["peft_config"] = adapter(merging.rank or RANK, merging.lora_alpha)
    # The callback that marks a checkpoint as whole comes last.
    callbacks = [each for each in (trainer.average, _callback(stop, report)) if each is not None]
    try:
        trainer.__init__(
            model=model,
            args=config,
            train_dataset=rows["train"],
            eval_dataset=rows.get("eval"),
            processing_class=tokenizer,
            callbacks=callbacks,
            **more,
        )
    except (ValueError, NotImplementedError) as error:  # TRL refuses some combinations only here
        raise RecipeError(f"training: {first_line(error)}", f"see TRL's {type(config).__name__}") from error
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)  # stdout belongs to the command line
    return trainer


def _online(base: type) -> type:
    """A TRL trainer class with our optimizer."""

    class OnlineTrainer(base):
        plan: Plan | None

        def create_optimizer(self, model: Any = None) -> Any:
            """Groups as Trainer makes them (no decay of norms and biases), but named: masks and deltas go by name."""
            if self.optimizer is None:
                model = self.model if model is None else model
                decays = set(self.get_decay_parameter_names(model))
                named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
                groups = [
                    {"params": [(n, p) for n, p in named if n in decays], "weight_decay": self.args.weight_decay},
                    {"params": [(n, p) for n, p in named if n not in decays], "weight_decay": 0.0},
                ]
                groups = [group for group in groups if group["params"]]
                self.optimizer, self.plan = make_optimizer(self.recipe, groups, self.state.max_steps, self.args, *self.paths)
                self.told("plan", {"steps": self.state.max_steps, **asdict(self.plan)})
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
            return loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            """As TRL's, with how much of the SFT delta is merged so far and how far the weights have moved by layer."""
            if self.moved is not None and "loss" in logs:
                layers = self.moved.layers(self.model)
                logs["drift"] = math.hypot(*layers.values())
                logs |= {f"drift/{part.replace(' ', '_')}": distance for part, distance in layers.items()}
            if self.plan is not None and self.plan.merges and "loss" in logs:
                logs["merged_total"] = merged_so_far(self.optimizer, self.plan.method)
            super().log(logs, start_time)

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *rest: Any) -> Any:
            prepared = super()._prepare_dataset(dataset, processing_class, args, *rest)
            name = rest[-1]  # "train" or "eval"; SFT's trainer has two more arguments before it
            told = _lengths(prepared, args.max_length)
            if len(prepared) == 0:
                raise DataError(
                    f"{name} data: no row has a prompt shorter than {args.max_length} tokens", "raise data.max_length"
                )
            self.told("data", {"name": name, "rows": len(prepared), "too_long": len(dataset) - len(prepared), **told})
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

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """None beside checkpoints: the result gets ours."""

        def _send_telemetry(self) -> None:
            """None: training on this machine is nobody else's business."""

    OnlineTrainer.__name__ = f"Online{base.__name__}"
    return OnlineTrainer


def _best_of_n(base: type) -> type:
    """RAFT on TRL's GRPO trainer: of the answers to a prompt only the best is learnt from."""

    class BestOfN(base):
        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            self._scored = super()._calculate_rewards(*args, **kwargs)
            return self._scored

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            import torch

            output = super()._generate_and_score_completions(inputs)
            if self.model.training:
                weights = self.reward_weights.to(self._scored.device)
                rewards = (self._scored * weights).nansum(dim=1)
                rewards[torch.isnan(self._scored).all(dim=1)] = torch.nan
                held = output["advantages"].shape[0]
                first = self.accelerator.process_index * held
                output["advantages"] = best_of_group(rewards, self.num_generations)[first : first + held]
            return output

    BestOfN.__name__ = base.__name__
    return BestOfN


def rows_of(inputs: Any, dataset: Any) -> list[int]:
    """The numbers (from 1) of the data set's rows that a batch was made of, found by their tokens."""
    if isinstance(inputs, list):  # prompts, of which answers are still to be sampled
        prompts = [row.get("prompt") for row in inputs]
        return [number for number, row in enumerate(dataset, 1) if row["prompt"] in prompts]
    try:
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        batch = {tuple(ids[:size]) for ids, size in zip(inputs["input_ids"].tolist(), lengths, strict=True)}
    except (KeyError, AttributeError):
        return []
    longest = max(map(len, batch))  # where rows are cut, this is where
    found = []
    for number, row in enumerate(dataset, 1):
        answer = row.get("chosen_ids") or row.get("completion_ids") or []
        ids = row.get("input_ids") or row.get("prompt_ids", []) + answer
        if tuple(ids) in batch or tuple(ids[:longest]) in batch:
            found.append(number)
    return found


def _lengths(dataset: Any, limit: int | None) -> dict[str, Any]:
    """How many rows are cut, and the longest."""
    columns = [c for c in ("chosen_ids", "rejected_ids", "completion_ids") if c in dataset.column_names]
    if "prompt_ids" not in dataset.column_names or not columns or len(dataset) == 0:
        return {}
    table = dataset.select_columns(["prompt_ids", *columns])
    sizes = [len(row["prompt_ids"]) + max(len(row[c]) for c in columns) for row in table]
    return {"cut": sum(size > limit for size in sizes) if limit else 0, "longest": max(sizes)}


def _agreed(stop: Stop, processes: int) -> bool:
    """True where any process was asked to stop: all have to stop after the same step."""
    if processes > 1:
        from accelerate.utils import gather_object

        stop.asked = any(gather_object([stop.asked]))
    return stop.asked


def _callback(stop: Stop, report: Report) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Tells what happens, marks whole checkpoints, and turns a signal into a checkpoint and a stop."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            report("step", {"step": state.global_step, "steps": state.max_steps})
            # answers that are still to be learnt from are in no checkpoint
            between = state.global_step % updates_per_sampling(args) == 0
            if _agreed(stop, args.world_size) and between:
                control.should_save = True
                control.should_training_stop = True
            return control

        def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **kwargs: Any) -> None:
            report("log", {"step": state.global_step, **(logs or {})})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                mark_complete(path)
                report("checkpoint", {"step": state.global_step, "path": str(path)})

    return Watch()
