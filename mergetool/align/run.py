"""`align`: from a recipe to a trained checkpoint, resumable at any moment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mergetool.align.check import check_align, fingerprint
from mergetool.align.inputs import load_fisher, load_policy, load_rows, load_stay, shared_by_ranks
from mergetool.align.optimizer import calibrated_on
from mergetool.align.picture import draw
from mergetool.align.preview import preview
from mergetool.align.quiet import quiet
from mergetool.align.recipe import AlignRecipe, align_recipe, load_align_recipe
from mergetool.align.refusals import refusals
from mergetool.align.report import Report
from mergetool.align.result import drift, write_account, write_model
from mergetool.align.snapshots import Snapshots
from mergetool.align.stay import Stay
from mergetool.align.trainer import make_trainer
from mergetool.align.training import training_config
from mergetool.align.watch import stop_on_signal
from mergetool.align.workspace import Workspace, disk_errors
from mergetool.align.written import amount_of, best_checkpoint, date_evaluation, log_of, relocate_best, step_of_checkpoint
from mergetool.architecture.context import learned_positions
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.manifest import Input, Manifest
from mergetool.checkpoint.output import check_output, files_beside, weight_hashes
from mergetool.config.given import recipe_given
from mergetool.hub.card import origin
from mergetool.hub.references import local_directory, open_layout
from mergetool.version import __version__


@dataclass(frozen=True)
class AlignResult:
    """What a run gave.

    Attributes:
        out: the checkpoint.
        steps: optimizer steps behind the weights that were written: those of the whole run, or of its best step.
        merging: method, K, number of merges, alpha, and `merged_total`, the part of tau_s merged in all.
        metrics: the last logged training metrics and, with `data.eval`, the metrics at the end.
        drift: distance to theta_s, see result.drift.
        seconds: of this call.
        resumed_from: the step that an interrupted run had reached.
        already_done: OUT held this very result before the call.
        data: what was kept and dropped of its rows, in words.
        trained: optimizer steps of the whole run.
    """

    out: Path
    steps: int
    merging: dict[str, Any]
    metrics: dict[str, float]
    drift: dict[str, Any]
    seconds: float = 0.0
    resumed_from: int | None = None
    already_done: bool = False
    data: dict[str, str] = field(default_factory=dict)
    trained: int | None = None

    def as_facts(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "out": str(self.out)}


def align(
    recipe: AlignRecipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    fresh: bool = False,
    report: Report | None = None,
    picture: bool = False,
    along: Sequence[float] = (),
) -> AlignResult:
    """Trains theta_s as a recipe says and writes the result under `out`, all of it or nothing.

    An interrupted call, even one that was killed, is continued by the same call: on a CPU the final weights are those
    of an uninterrupted run, bit for bit.

    Args:
        recipe: a YAML file's path, what it would say as plain values, or read already by load_align_recipe or align_recipe.
        out: a directory that does not exist yet (or is empty).
        fresh: start again instead of continuing an interrupted run.
        report: told of what happens, as (event, facts); see watch.Report.
        picture: also write training.png: loss, reward margin, drift by layer.
        along: places in the run, shares of it below 1 or steps, whose weights are also kept, in OUT/along/step-N.

    Raises:
        RecipeError, CheckpointError, DataError, OutputError: for the user to correct; nothing is left behind.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.
    """
    from transformers import set_seed

    started, out = time.monotonic(), Path(out)
    recipe = recipe_given(recipe, AlignRecipe, load_align_recipe, align_recipe)
    check_align(recipe)  # TRL's config, made in it, has also joined the process group where there is one
    ranks = _ranks()
    report = report if report is not None and ranks.is_main_process else (lambda event, facts: None)
    identity = fingerprint(recipe)
    if _is_done(out, identity, fresh):
        return _done_before(out)
    fetching = _fetching(report)
    sft = local_directory(recipe.sft, fetching)
    base = local_directory(recipe.base, fetching) if recipe.base is not None else None
    start = local_directory(recipe.start, fetching) if recipe.policy is not None else None
    with quiet(), disk_errors(out), Workspace(out, identity, fresh, ranks) as work, stop_on_signal() as stop:
        if work.appeared:  # by another run: the same, or this says that it is not
            _is_done(out, identity, fresh)
            return _done_before(out)
        rows, told = load_rows(recipe, report, work.rows(ranks.process_index))
        if ranks.num_processes > 1:
            rows = {name: shared_by_ranks(data, work.directory / f"rows-{name}", ranks) for name, data in rows.items()}
        stay = load_stay(recipe, sft, report)
        config = training_config(recipe, work.training, learned_positions(read_layout(sft).config))
        fisher = load_fisher(recipe, sft, stay, work.directory, config.device, ranks, report)
        set_seed(config.seed)  # it draws the head of a reward model
        model, tokenizer = load_policy(recipe, sft, rows["train"], start)
        trainer = make_trainer(recipe, config, model, tokenizer, rows, (base, sft), stop, report, stay, fisher)
        preview(trainer, tokenizer, report)
        kept = Snapshots(along, work, recipe, sft)
        kept.watch(trainer)
        resumed = _train(trainer, work, kept, report)
        if stop.asked and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt(
                f"a checkpoint at step {trainer.state.global_step} is kept; the same command goes on from there"
            )
        made = _finish(trainer, recipe, (base, sft), stay, work, kept, identity, told, report, picture)
    return AlignResult(**made, resumed_from=resumed, seconds=time.monotonic() - started)


def _is_done(out: Path, identity: str, fresh: bool) -> bool:
    return check_output(out, None if fresh else lambda manifest: manifest.fingerprint == identity)


def _fetching(report: Report) -> Any:
    return lambda done, total, file: report("fetch", {"done": done, "total": total, "file": file})


def _ranks() -> Any:
    """The processes of this run: one, or those that torchrun or accelerate started."""
    from accelerate import PartialState

    return PartialState()


def _train(trainer: Any, work: Workspace, kept: Snapshots, report: Report) -> int | None:
    """Trains, from the last whole checkpoint if there is one; returns the step that it started from.

    A checkpoint behind a step whose weights are wanted and missing is of no use.
    """
    from transformers import set_seed

    # What the constructor drew from the generators depends on caches; the run must not.
    set_seed(trainer.args.seed)
    checkpoint = work.last_checkpoint()
    if checkpoint is None or kept.lacks(checkpoint):
        with refusals(trainer.args, trainer.recipe.training):
            trainer.train()
        return None
    step = step_of_checkpoint(checkpoint)
    report("resume", {"step": step})
    if trainer.is_world_process_zero():
        relocate_best(checkpoint)
    trainer.accelerator.wait_for_everyone()
    with refusals(trainer.args, trainer.recipe.training):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    return step


def _finish(
    trainer: Any,
    recipe: AlignRecipe,
    paths: tuple[Path | None, Path],
    stay: Stay | None,
    work: Workspace,
    kept: Snapshots,
    identity: str,
    told: dict[str, str],
    report: Report,
    picture: bool,
) -> dict[str, Any]:
    """Evaluates, writes the result, publishes it; returns the fields of AlignResult."""
    base, sft = paths
    best, trained = best_checkpoint(trainer), trainer.state.global_step
    step = trained if best is None else step_of_checkpoint(best)
    if trainer.average is not None:
        if best is not None:
            trainer.average.load(best, trainer.model)
        trainer.average.put(trainer.model)
    log = trainer.state.log_history
    if trainer.eval_dataset is not None:
        trainer.evaluate()
        date_evaluation(log, step)
    metrics = _last(log_of(log, step))
    merging = {**asdict(trainer.plan), **amount_of(trainer, recipe.merging.method)}
    if stay is not None and recipe.merging.rows is not None:
        merging["rows"] = stay.account(recipe.merging.rows, recipe.directory)
    if trainer.averaging is not None:
        merging["written"] = trainer.averaging.rule.told(step, trainer.state.max_steps)
    moved: dict[str, Any] = {}
    # A sharded model has to be gathered by all ranks together; the others are whole on each.
    state = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if trainer.is_world_process_zero():
        report("result", {"out": str(work.out)})
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):  # LoRA: what is published is a whole model
            model = model.merge_and_unload()
        dtype = write_model(model, state, recipe, sft, work.result, trainer.processing_class)
        moved = drift(work.result, sft, base)
        manifest = Manifest(
            mergetool=__version__,
            kind="align",
            fingerprint=identity,
            name=work.out.name,
            recipe=recipe.as_written(),
            calibration=calibrated_on(trainer.optimizer),
            steps=step,
            trained=trained if trained != step else None,
            merging=merging,
            metrics=metrics,
            drift=moved,
            data=told,
            dtype=dtype,
            along=kept.publish() or None,
            seeds={"training": trainer.args.seed, "merging": recipe.merging.seed or 0},
            inputs=_inputs(recipe),
            outputs_sha256=weight_hashes(work.result),
            files=files_beside(work.result),
            versions=_versions(),
        )
        write_account(work.result, manifest, log)
        if picture:
            draw(
                work.result / "training.png",
                log,
                moved["layers"],
                recipe.algorithm_row.logged,
                ", ".join(filter(None, [f"{work.out.name}: {trainer.plan.method}", merging.get("written")])),
                step if trained != step else None,
            )
        work.publish()
    trainer.accelerator.wait_for_everyone()
    return {
        "out": work.out,
        "steps": step,
        "trained": trained,
        "merging": merging,
        "metrics": metrics,
        "drift": moved,
        "data": told,
    }


def _last(log: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of each logged number, without what depends on the machine or on where the run was resumed."""
    metrics: dict[str, float] = {}
    for line in log:
        metrics.update({key: value for key, value in line.items() if isinstance(value, (int, float))})
    passing = ("step", "total_flos", "train_loss", "num_tokens", "eval_num_tokens", "drift")  # the manifest has its own drift
    return {
        k: v
        for k, v in metrics.items()
        if k not in passing and not k.startswith("drift/") and not k.endswith(("_runtime", "_per_second", "step_time"))
    }


def _inputs(recipe: AlignRecipe) -> list[Input]:
    found = []
    models = [("sft", recipe.sft_model, recipe.sft), ("base", recipe.base_model, recipe.base)]
    if recipe.policy is not None:
        models.append(("policy", recipe.policy, recipe.start))
    for role, name, place in models:
        if place is not None:
            layout = open_layout(place)
            headers = {file: header for file, (_, header) in layout.headers.items()}
            found.append(replace(origin(str(name), layout, role), headers_sha256=headers))
    return found


def _done_before(out: Path) -> AlignResult:
    found = Manifest.read(out)
    steps, same = found.steps or 0, (found.merging, found.metrics, found.drift)
    return AlignResult(out, steps, *same, already_done=True, data=found.data, trained=found.trained or steps)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "mergetool": __version__,
        **{name: version(name) for name in ("torch", "transformers", "trl", "datasets", "accelerate")},
    }
