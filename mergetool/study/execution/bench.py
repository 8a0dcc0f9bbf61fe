"""The bench that candidates are measured on: made when the first one needs it, the same for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mergetool import reading
from mergetool.architecture.context import learned_positions
from mergetool.evaluate import METRICS, Harness, Instruments, Metric, Reference, measure, refer
from mergetool.evaluate.interval import STATISTICS
from mergetool.evaluate.paired import clusters_of
from mergetool.evaluate.passes import wants_model
from mergetool.fingerprints import digest
from mergetool.hub.references import open_layout
from mergetool.study.analysis.row_scores import RowColumns
from mergetool.study.execution.live_model import LiveModel
from mergetool.study.execution.parts import part_of, rows_after
from mergetool.study.execution.scored import Scored, samples_of
from mergetool.study.recipe.columns import DISTANCE, SPLITS, columns
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
            self._clusters = {
                split: {one.task.name: _shared(clusters_of(one.rows)) for one in found}
                for split, found in self._prepared.items()
            }
            self._asks_distance = DISTANCE in columns(self._recipe)
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

    def score(self, put: Callable[[LiveModel], None]) -> Scored:
        """Every metric on both splits.

        Args:
            put: fills the live model with a candidate's weights.
        """
        live = self._start()
        put(live)
        found = Scored(self._distances(live))
        for split in SPLITS:
            for one in self._prepared[split]:
                reference = self._reference[split].get(one.task.name)
                scores = measure(live.model, one, self._tokenizer, reference, instruments=self._instruments)
                for name, score in scores.items():
                    kept = {key: score[key] for key in KEPT if key in score} | {"left_out": one.left_out}
                    if by := _by_category(one.rows, METRICS[name], score["rows"]):
                        kept["by"] = by
                    found.add(split, f"{one.task.name}.{name}", kept, score["rows"], self._clusters[split][one.task.name])
                found.samples += samples_of(split, one, scores)
            for public in self._public:
                for name, score in public.measure(live.model, self._tokenizer, split).items():
                    kept = {key: score[key] for key in (*KEPT, "by") if key in score} | {"left_out": 0}
                    found.add(split, f"{public.task.name}.{name}", kept, score.get("rows"))
            if self._asks_distance:
                away = found.distances["sft"]
                found.add(split, DISTANCE.name, {"value": away, "low": away, "high": away, "n": 1, "left_out": 0})
        return found

    def part(
        self, put: Callable[[LiveModel], None], start: int, stop: int, before: Mapping[str, RowColumns] | None = None
    ) -> dict[str, RowColumns]:
        """The first metric of each entry on some of the validation rows, for those who compare before all are measured.

        Args:
            put: as `score`.
            start, stop: rows of each entry; an entry that has fewer gives what it has.
            before: what this gave for the rows before `start`; the new rows follow them.

        Returns:
            `ENTRY.METRIC` -> the rows up to `stop`. A benchmark takes its documents up to `stop` anew.
        """
        live = self._start()
        put(live)
        found: dict[str, RowColumns] = {}
        for one in self._prepared["validation"]:
            name = f"{one.task.name}.{one.task.metrics[0]}"
            rows = (before or {}).get(name)
            some, reference = part_of(one, self._reference["validation"].get(one.task.name), start, stop)
            if some is not None:
                (score,) = measure(live.model, some, self._tokenizer, reference, instruments=self._instruments).values()
                rows = rows_after(rows, score["rows"])
            assert rows is not None  # the first part of an entry is never empty
            clusters = self._clusters["validation"][one.task.name]
            found[name] = RowColumns(rows.columns, clusters and clusters[: len(rows.columns[0])])
        for public in self._public:
            scores = public.measure(live.model, self._tokenizer, "validation", limit=stop)
            name, score = next(iter(scores.items()))
            if "rows" in score:
                found[f"{public.task.name}.{name}"] = rows_after(None, score["rows"])
        return found

    def _distances(self, live: LiveModel) -> dict[str, float]:
        """How far the live model is from the study's SFT and RLHF checkpoints."""
        models = {name: source for name, source in self._recipe.sources().items() if name != "BASE"}
        return {name.lower(): live.distance_from(source) for name, source in models.items()}


KEPT = ("value", "low", "high", "n", "without_verdict")


def _shared(clusters: list[int]) -> tuple[int, ...] | None:
    """Clusters of rows; None where every row is one of its own."""
    return tuple(clusters) if max(clusters) + 1 < len(clusters) else None


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
