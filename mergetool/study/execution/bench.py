"""The bench that candidates are measured on: made when the first one needs it, the same for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.architecture.context import learned_positions
from mergetool.evaluate import METRICS, Harness, Instruments, Metric, Reference, measure, refer
from mergetool.evaluate.interval import STATISTICS
from mergetool.evaluate.passes import wants_model
from mergetool.fingerprints import digest
from mergetool.hub.references import open_layout
from mergetool.study.execution.live_model import LiveModel
from mergetool.study.recipe.columns import SPLITS
from mergetool.study.recipe.splits import harness_tasks, prepare_all
from mergetool.study.recipe.study_recipe import StudyRecipe

CATEGORY_KEYS = ("skill", "category", "subject")  # a row's own word for what kind of row it is


class Bench:
    """A live model, the tokenised rows of both splits, public benchmarks, and what the reference makes of the rows.

    A rerun that has nothing to measure loads nothing.

    Args:
        recipe: the study.
        out: reference.json is kept there, so that the SFT model is asked once per study and not once per run, and
            verdicts.jsonl, what a judge said.
        sft: identity of the reference. scoring: identity of metrics and data.
    """

    def __init__(self, recipe: StudyRecipe, out: Path, sft: str, scoring: str, device: str | None, dtype: str | None) -> None:
        self._recipe, self._cache, self._key = recipe, out / "reference.json", [sft, scoring, device, dtype]
        self._device, self._dtype = device, dtype
        self._instruments = Instruments(device, dtype, out / "verdicts.jsonl")
        self._live: LiveModel | None = None

    def _start(self) -> LiveModel:
        from mergetool.hub.loading import load_tokenizer

        if self._live is None:
            source = self._recipe.source(self._recipe.models.sft)
            self._tokenizer = load_tokenizer(source)
            self._prepared = prepare_all(self._recipe, self._tokenizer, learned_positions(open_layout(source).config))
            self._public = [Harness(task) for task in harness_tasks(self._recipe)]
            for one in self._public:
                one.load()
            self._instruments.make_ready(one.task for one in self._prepared["test"])
            live = LiveModel(source, self._device, self._dtype)
            self._reference = self._references(live.model)
            self._live = live
        return self._live

    def _references(self, sft: Any) -> dict[str, dict[str, Reference]]:
        """Split -> entry -> what the SFT model makes of its rows; `sft` must hold its weights."""
        kept = self._kept_references(sft)
        beside = None
        if any(wants_model(one) for one in self._prepared["test"]):
            from mergetool.hub.loading import load_model

            # whole distributions cannot be kept: the SFT model stays beside the one that is overwritten
            beside = load_model(self._recipe.source(self._recipe.models.sft), self._device, self._dtype)
        return {
            split: {name: replace(reference, model=beside) for name, reference in references.items()}
            for split, references in kept.items()
        }

    def _kept_references(self, sft: Any) -> dict[str, dict[str, Reference]]:
        """Log-probabilities and answers of the SFT model, from reference.json where it holds those of this study."""
        import os
        import platform

        import torch

        # sums depend in their last bits on the threads and the machine; a reference from elsewhere would not tie with
        # itself, and SFT must score exactly one half
        key = digest([*self._key, torch.__version__, torch.get_num_threads(), platform.node(), platform.machine()])
        try:
            kept = reading.parsed_file(self._cache)
            if kept["key"] == key and kept["hash"] == digest(kept["references"]):
                return {
                    split: {name: _read(one) for name, one in references.items()}
                    for split, references in kept["references"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # not there, or damaged: it is computed again
        found = {split: {one.task.name: refer(sft, one, self._tokenizer) for one in self._prepared[split]} for split in SPLITS}
        written = {split: {name: _written(one) for name, one in references.items()} for split, references in found.items()}
        part = self._cache.with_suffix(f".{os.getpid()}.part")  # several workers may write it at once
        part.write_text(json.dumps({"key": key, "hash": digest(written), "references": written}), encoding="utf-8")
        os.replace(part, self._cache)
        return found

    def score(self, put: Callable[[LiveModel], None]) -> dict[str, dict[str, dict[str, Any]]]:
        """Every metric on both splits.

        Args:
            put: fills the live model with a candidate's weights.

        Returns:
            split -> `ENTRY.METRIC` -> value, low, high, n, left_out, and `by`, the value per category where rows say
            which they belong to, or per task of a group of benchmarks.
        """
        live = self._start()
        put(live)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for split in SPLITS:
            found[split] = {}
            for one in self._prepared[split]:
                reference = self._reference[split].get(one.task.name)
                scores = measure(live.model, one, self._tokenizer, reference, instruments=self._instruments)
                for name, score in scores.items():
                    kept = {key: score[key] for key in KEPT if key in score} | {"left_out": one.left_out}
                    if by := _by_category(one.rows, METRICS[name], score["rows"]):
                        kept["by"] = by
                    found[split][f"{one.task.name}.{name}"] = kept
            for public in self._public:
                for name, score in public.measure(live.model, self._tokenizer, split).items():
                    kept = {key: score[key] for key in (*KEPT, "by") if key in score} | {"left_out": 0}
                    found[split][f"{public.task.name}.{name}"] = kept
        return found


KEPT = ("value", "low", "high", "n", "without_verdict")


def _by_category(rows: tuple[dict, ...], metric: Metric, columns: tuple[list[float], ...]) -> dict[str, float]:
    """The metric's value within each category that the rows name."""
    key = next((key for key in CATEGORY_KEYS if key in rows[0]), None)
    if key is None:
        return {}
    members: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        members.setdefault(str(row.get(key)), []).append(at)
    statistic = STATISTICS[metric.statistic]
    return {name: float(statistic(*([column[at] for at in own] for column in columns))) for name, own in members.items()}


def _written(reference: Reference) -> dict[str, Any]:
    """A reference as JSON; the model itself is not."""
    scores = reference.log_probs
    return {"log_probs": [side.tolist() for side in scores] if scores else None, "answers": reference.answers}


def _read(kept: dict[str, Any]) -> Reference:
    import torch

    scores, answers = kept["log_probs"], kept["answers"]
    chosen_and_rejected = None
    if scores:
        chosen, rejected = (torch.tensor(side, dtype=torch.float64) for side in scores)
        chosen_and_rejected = chosen, rejected
    return Reference(chosen_and_rejected, tuple(answers) if answers is not None else None)
