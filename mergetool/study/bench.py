"""The bench that candidates are measured on: made when the first one needs it, the same for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mergetool.study.identity import digest
from mergetool.study.live import LiveModel
from mergetool.study.recipe import StudyRecipe
from mergetool.study.splits import SPLITS, prepare_all

CATEGORY_KEYS = ("skill", "category", "subject")  # a row's own word for what kind of row it is


class Bench:
    """A live model, the tokenised rows of both splits, and the reference's log-probabilities.

    A rerun that has nothing to measure loads nothing.

    Args:
        recipe: the study.
        out: reference.json is kept there: the SFT model is scored once per study, not once per run.
        sft: identity of the reference. scoring: identity of metrics and data.
    """

    def __init__(self, recipe: StudyRecipe, out: Path, sft: str, scoring: str, device: str | None, dtype: str | None) -> None:
        self._recipe, self._cache, self._key = recipe, out / "reference.json", [sft, scoring, device, dtype]
        self._device, self._dtype = device, dtype
        self._live: LiveModel | None = None

    def _start(self) -> LiveModel:
        from mergetool.evaluate.run import load_tokenizer

        if self._live is None:
            source = self._recipe.source(self._recipe.models.sft)
            self._tokenizer = load_tokenizer(source)
            self._prepared = prepare_all(self._recipe, self._tokenizer)
            self._live = LiveModel(source, self._device, self._dtype)
            self._reference = self._reference_scores(self._live)
        return self._live

    def _reference_scores(self, live: LiveModel) -> dict[str, dict[str, tuple]]:
        """Split -> entry -> log-probabilities of the chosen and the rejected sides under the SFT model, nats.

        `live` must hold the SFT weights.
        """
        import os
        import platform

        import torch

        from mergetool.evaluate import reference_scores

        # sums depend in their last bits on the threads and the machine; a reference from elsewhere would not tie with
        # itself, and SFT must score exactly one half
        key = digest([*self._key, torch.__version__, torch.get_num_threads(), platform.node(), platform.machine()])
        try:
            kept = json.loads(self._cache.read_text(encoding="utf-8"))
            if kept["key"] == key:
                return {
                    split: {
                        name: tuple(torch.tensor(side, dtype=torch.float64) for side in sides) for name, sides in tasks.items()
                    }
                    for split, tasks in kept["scores"].items()
                }
        except (OSError, ValueError, KeyError):
            pass  # not there, or cut short by a kill: it is computed again
        pad_id = self._tokenizer.pad_token_id or 0
        found = {
            split: {one.task.name: reference_scores(live.model, one, pad_id) for one in self._prepared[split] if one.pairs}
            for split in SPLITS
        }
        kept = {
            split: {name: [side.tolist() for side in sides] for name, sides in tasks.items()} for split, tasks in found.items()
        }
        part = self._cache.with_suffix(f".{os.getpid()}.part")  # several workers may write it at once
        part.write_text(json.dumps({"key": key, "scores": kept}), encoding="utf-8")
        os.replace(part, self._cache)
        return found

    def score(self, put: Callable[[LiveModel], None]) -> dict[str, dict[str, dict[str, Any]]]:
        """Every metric on both splits.

        Args:
            put: fills the live model with a candidate's weights.

        Returns:
            split -> `ENTRY.METRIC` -> value, low, high, n, left_out, and `by`, the value per category where rows say
            which they belong to.
        """
        from mergetool.evaluate import measure

        live = self._start()
        put(live)
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for split in SPLITS:
            found[split] = {}
            for one in self._prepared[split]:
                scores = measure(live.model, one, self._tokenizer, self._reference[split].get(one.task.name))
                for name, score in scores.items():
                    kept = {key: score[key] for key in ("value", "low", "high", "n")} | {"left_out": one.left_out}
                    if by := _by_category(one.rows, *score["rows"]):
                        kept["by"] = by
                    found[split][f"{one.task.name}.{name}"] = kept
        return found


def _by_category(rows: tuple[dict, ...], top: list[float], bottom: list[float]) -> dict[str, float]:
    key = next((key for key in CATEGORY_KEYS if key in rows[0]), None)
    if key is None:
        return {}
    sums: dict[str, list[float]] = {}
    for row, above, below in zip(rows, top, bottom, strict=True):
        entry = sums.setdefault(str(row.get(key)), [0.0, 0.0])
        entry[0] += above
        entry[1] += below
    return {name: above / below for name, (above, below) in sums.items()}
