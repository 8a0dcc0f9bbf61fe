"""Many candidates through the same metrics: chosen on validation rows, reported on test rows.

recipe.py       the study language, read strictly; entries.py: its metrics
grid.py         a candidate: one point of a grid
candidates.py   entries -> candidates, and the trials of a search
offline.py      the merge recipe that a point stands for; trained.py: the align recipe
averages.py     shares by part, and AMA
splits.py       the data of the metrics, tokenised once; no row in both splits
live.py         one model in memory that every candidate's weights are put into
results.py      results.jsonl: appended to, read back, one line a candidate
published.py    the scores of one result, for its model card
checkpoints.py  models along a training run as candidates
ranges.py       what a search may vary
search.py       points that Optuna proposes, as candidates
maker.py        one candidate: trained or merged in memory, then measured
bench.py        what it is measured on, the same for all
compare.py      compare(recipe, out): checked, run, drawn and reported in one call
run.py          run_study(recipe, out): whatever is not in results.jsonl yet
spread.py       who makes which candidate when: this process, or a crew of workers
workers.py      a crew of processes; cluster.py: one of Ray actors
save.py         candidates that were merged in memory, written as checkpoints
choose.py       seeds to mean and spread, the Pareto front, the rule that chooses
check.py        everything that can be known without weights
hypervolume.py  how much of the box between SFT and RLHF a family covers
look.py         colours, markers and axis names of all pictures
picture.py      pareto.png: points.py says what is joined, captions.py puts words to it
labels.py       text beside points without overlap
curve.py        KNOB.png: metrics over a swept knob
report.py       report.html, one file; categories.py: its bars by category
outputs.py      all of them, from a result
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mergetool.exports import lazy

if TYPE_CHECKING:
    from mergetool.study.check import check_study
    from mergetool.study.choose import summarise
    from mergetool.study.outputs import write_outputs
    from mergetool.study.recipe import StudyRecipe, load_study_recipe
    from mergetool.study.run import StudyResult, run_study
    from mergetool.study.save import save

_LAZY = {
    "StudyRecipe": "mergetool.study.recipe",
    "StudyResult": "mergetool.study.run",
    "check_study": "mergetool.study.check",
    "load_study_recipe": "mergetool.study.recipe",
    "run_study": "mergetool.study.run",
    "save": "mergetool.study.save",
    "summarise": "mergetool.study.choose",
    "write_outputs": "mergetool.study.outputs",
}
__all__ = [
    "StudyRecipe",
    "StudyResult",
    "check_study",
    "load_study_recipe",
    "run_study",
    "save",
    "summarise",
    "write_outputs",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _LAZY)
