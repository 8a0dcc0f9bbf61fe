"""mergetool align: training with online merging."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.shell import Settings, echo, emit_json, naming, note, progress_bar, size
from mergetool.methods import TRAININGS


def align(
    recipe: Annotated[Path, typer.Argument(help="An align recipe.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The directory to make; it appears when complete.", show_default=False)],
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what an interrupted run left.")] = False,
    along: Annotated[
        list[float] | None,
        typer.Option("--along", help="Also keep the weights of this step, or share of the run below 1.", show_default=False),
    ] = None,
    settings: Settings = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train from the SFT model with DPO and the like, merging the SFT delta into the optimizer's steps."""
    from mergetool.align import load_align_recipe
    from mergetool.align.run import align as run

    with naming(recipe):
        loaded = load_align_recipe(recipe, settings or ())
    with naming(recipe), progress_bar("aligning") as update:
        result = run(loaded, out, fresh=fresh, report=_teller(update, loaded.algorithm_row), picture=True, along=along or ())
    if os.environ.get("RANK", "0") != "0":
        return  # under torchrun the first process speaks for all
    if json:
        emit_json(result.as_facts())
        return
    if result.already_done:
        note(f"{out} already is this run; nothing to do (see {out / 'mergetool.json'})")
    else:
        _tell_result(result, loaded)
    echo(out)


def _teller(update: Any, algorithm: Any) -> Any:
    """What is said while the run goes on."""

    def tell(event: str, facts: dict[str, Any]) -> None:
        if event == "step":
            update(facts["step"], facts["steps"], f"step {facts['step']} of {facts['steps']}")
        elif event == "calibrate":
            update(facts["done"], facts["total"], f"calibrating, {facts['what']}")
        elif event == "fetch":
            update(facts["done"], facts["total"], f"fetching {facts['file']}")
        elif event == "information":
            update(facts["done"], facts["total"], f"Fisher information of row {facts['done']} of {facts['total']}")
        elif event == "log" and "loss" in facts:
            shown = [one for one in algorithm.logged if one.word and one.key in facts]
            more = "".join(f"  {one.word} {facts[one.key]:.4f}" for one in shown)
            more += f"  rows {facts['rows_loss']:.4f}" if "rows_loss" in facts else ""
            more += f"  projected {facts['projected']:.3g}" if "projected" in facts else ""
            more += f"  drift {facts['drift']:.4g}" if "drift" in facts else ""
            merged = f"  merged {facts['merged_total']:.3g} of tau_s" if "merged_total" in facts else ""
            note(f"step {facts['step']}: loss {facts['loss']:.4f}{more}{merged}")
        elif event in _LINES:
            line = _LINES[event](facts)
            if line:
                note(line)

    return tell


def _data(facts: dict[str, Any]) -> str:
    parts = []
    if facts.get("packed"):
        parts.append(f"{facts['packed']} packed together")
    if facts.get("too_long"):
        parts.append(f"{facts['too_long']} dropped, no answer left within max_length")
    if facts.get("cut"):
        parts.append(f"{facts['cut']} cut at max_length")
    if facts.get("longest"):
        parts.append(f"longest {facts['longest']} tokens")
    return f"{facts['name']} tokens: {facts['rows']} rows" + (f" ({', '.join(parts)})" if parts else "")


def _plan(facts: dict[str, Any]) -> str:
    if not facts["merges"]:
        return f"{facts['steps']} steps of {facts['method']}, nothing merged"
    row = TRAININGS[facts["method"]]
    if row.online.calibrated:
        after = "each update" if facts["every"] == 1 else f"what {facts['every']} steps add"
        return f"{facts['steps']} steps of {facts['method']}: what the calibration rows see is taken from {after}"
    total = f"{row.at_most}{facts['merged_total']:.3g}"
    return (
        f"{facts['steps']} steps of {facts['method']}, {facts['merges']} merges (every {facts['every']}) with "
        f"alpha {facts['alpha']:.3g}: {total} of {row.merges} will be merged in all"
    )


def _row_gradients(facts: dict[str, Any]) -> str:
    return (
        f"gradients of {facts['sets']} sets of rows, computed every {facts['every']} steps, are taken from each "
        f"{'update' if facts['update'] else 'gradient'}: {size(facts['bytes'])} in memory for it"
    )


def _preview(facts: dict[str, Any]) -> str:
    lines = [
        f"first {side}: {one.get('marked', one['text'])!r} ({one['tokens']} tokens{_in_loss(one)}, "
        f"{one.get('bos', 0)} BOS, {one.get('eos', 0)} EOS)"
        for side, one in facts.items()
    ]
    packed = any("packed" in one for one in facts.values())
    if not packed and any(one.get("bos", 0) > 1 for one in facts.values()):
        lines.append("warning: more than one BOS; the rows hold one and the tokenizer adds another")
    return "\n".join(lines)


def _in_loss(facts: dict[str, Any]) -> str:
    """How many tokens are learnt, where the trainer has labels; the text has them between brackets."""
    return f", {facts['in_loss']} of them in the loss: ⟦…⟧" if "in_loss" in facts else ""


_LINES = {
    "rows": lambda facts: f"{facts['name']} data: {facts['told']}",
    "data": _data,
    "reference": lambda facts: (
        f"{facts['name']} reference log-probabilities {'read back from the cache' if facts['cached'] else 'computed'}"
    ),
    "plan": _plan,
    "row_gradients": _row_gradients,
    "preview": _preview,
    "resume": lambda facts: f"going on from the checkpoint at step {facts['step']}",
    "checkpoint": lambda facts: f"checkpoint at step {facts['step']}",
}


def _tell_result(result: Any, recipe: Any) -> None:
    note(
        f"{recipe.algorithm} with {result.merging['method']} -> {result.out} "
        f"({result.steps} steps{_best(result)}, {result.seconds:.1f} s{_resumed(result)})"
    )
    moved = result.drift
    if moved:
        largest = max(moved["layers"], key=moved["layers"].get)
        note(
            f"  distance to the SFT model: {moved['norm']:.4g} ({100 * moved['relative']:.3g} % of its norm), most in {largest}"
        )
        if moved["norm"] == 0:
            note("warning: the weights did not change at all; raise training.learning_rate or train longer")
        if "along_tau" in moved:
            note(f"  along the SFT delta: {moved['along_tau']:+.3g} of it")
    row = TRAININGS.get(result.merging["method"])
    if result.merging["merges"] and row is not None and not row.online.calibrated:
        note(
            f"  merged: {row.at_most}{result.merging['merged_total']:.3g} of {row.merges}, "
            f"{result.merging['merges']} times {result.merging['alpha']:.3g}"
        )
    if written := result.merging.get("written"):
        note(f"  written: {written}")
    for prefix in ("", "eval_"):
        shown = {
            name: result.metrics[key]
            for name in ("loss", *(one.key for one in recipe.algorithm_row.logged if one.at_end))
            if (key := prefix + name) in result.metrics
        }
        if shown:
            note(f"  {'evaluation' if prefix else 'training'}: " + ", ".join(f"{k} {v:.4g}" for k, v in shown.items()))


def _best(result: Any) -> str:
    return f", the best of {result.trained}" if result.trained != result.steps else ""


def _resumed(result: Any) -> str:
    return f", resumed at step {result.resumed_from}" if result.resumed_from is not None else ""
