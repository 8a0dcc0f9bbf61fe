"""A search in place of a grid: Optuna proposes points, each becomes a candidate, its validation scores come back.

Two objectives, the study's reward and tax, both on the validation rows. Points are proposed in batches and told in the
order of their numbers, so what is tried depends on the seed and the scores alone: not on how many workers there are,
nor on which of them was done first. results.jsonl is the only memory. A run that is started again proposes from the
beginning, finds the scores of what was measured there, and so comes to the point where the last one was killed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.kinds import CandidateEntry
from mergetool.study.candidates.ranges import Range
from mergetool.study.recipe.columns import axes
from mergetool.study.recipe.expand import load_optuna, trial_points
from mergetool.study.recipe.study_recipe import StudyRecipe

Row = dict[str, Any]
FIRST = 8  # drawn at random before the sampler learns: the same however long the search, so that it can be made longer
DIGITS = 4  # of a proposed number: a recipe that a person would write


class Search:
    """One entry's search.

    The sampler is TPE, multivariate, since w and p act together. NSGA-II, Optuna's default for two objectives, draws its
    first population of 50 at random, so that with 40 trials it would be random search.

    Args:
        recipe: the study.
        entry: a line of `candidates` with `search`.
        known: the line of results of a candidate that was measured before; None where it was not, or failed.

    Raises:
        MergetoolError: Optuna is not installed.
    """

    def __init__(self, recipe: StudyRecipe, entry: CandidateEntry, known: Callable[[Candidate], Row | None]) -> None:
        assert entry.search is not None
        self._recipe, self._entry, self._settings, self._known = recipe, entry, entry.search, known
        self._axes = axes(recipe)
        self._space = {key: _distribution(value) for key, value in entry.candidate_class.search_space(entry.grid).items()}
        self._optuna = load_optuna()
        directions = ["maximize" if column.metric.higher_is_better else "minimize" for column in self._axes]
        self._study = self._optuna.create_study(directions=directions, sampler=_sampler(self._settings.seed))
        self._batch: list[tuple[Any, list[Candidate]]] = []
        self._rows: dict[str, Row] = {}
        self.candidates: list[Candidate] = []
        """All that were proposed so far."""

    def next(self) -> list[Candidate]:
        """Candidates that have to be measured before the search can go on; none when it has ended."""
        while len(self._study.trials) < self._settings.trials:
            for _ in range(min(self._settings.batch, self._settings.trials - len(self._study.trials))):
                trial = self._study.ask(self._space)
                values = {key: _short(value) for key, value in trial.params.items()}
                self._batch.append((trial, trial_points(self._recipe, self._entry, trial.number + 1, values)))
            proposed = [one for _, some in self._batch for one in some]
            self.candidates += proposed
            for candidate in proposed:
                if row := self._known(candidate):
                    self._rows[candidate.name] = row
            if missing := [one for one in proposed if one.name not in self._rows]:
                return missing
            self._tell()
        return []

    def told(self, candidate: Candidate, row: Row) -> list[Candidate]:
        """Takes a line of results; returns the next batch's candidates where this was the last that it waited for."""
        waited = {one.name for _, some in self._batch for one in some} - set(self._rows)
        if candidate.name not in waited:
            return []
        self._rows[candidate.name] = row
        if len(waited) > 1:
            return []
        self._tell()
        return self.next()

    def _tell(self) -> None:
        """The batch's scores, in the order of its numbers; a trial with a candidate that failed has none."""
        for trial, candidates in self._batch:
            rows = [self._rows[one.name] for one in candidates]
            if any(row.get("error") for row in rows):
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            else:
                scores = [row["scores"]["validation"] for row in rows]
                self._study.tell(
                    trial, [statistics.fmean(score[column.name]["value"] for score in scores) for column in self._axes]
                )
        self._batch = []


def searches(recipe: StudyRecipe, known: Callable[[Candidate], Row | None]) -> list[Search]:
    """A search for each entry that asks for one."""
    return [Search(recipe, entry, known) for entry in recipe.candidates if entry.search]


def _short(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _sampler(seed: int) -> Any:
    import warnings

    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `multivariate` was experimental before Optuna 5
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=FIRST)


def _distribution(value: Range | list[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(value, list):
        return CategoricalDistribution(value)
    if value.whole:
        return IntDistribution(int(value.low), int(value.high), log=value.log, step=int(value.step or 1))
    return FloatDistribution(float(value.low), float(value.high), log=value.log, step=value.step)
