"""Reward and tax of one model: completion log-probabilities, greedy answers, public benchmarks, and the metrics of them.

metrics.py         THE table: name, unit, which way is better, what it needs
suites.py          named lists of public benchmarks, and what of each is missing
tokens.py          rows -> token ids, cut where TRL's DPO trainer cuts them
logprobs.py        summed log-probability of each completion, logits for completion tokens alone
divergence.py      exact KL of two models over completions
greedy.py          greedy answers and how they are compared
scripts.py         which scripts an answer is written in
reward_model.py    scores of a sequence-classification model
judge.py           verdicts over an OpenAI-compatible endpoint; verdicts.py keeps them
instruments.py     reward models and judges, made once
passes.py          one model over one task: each pass made once for all metrics that read it
interval.py        statistics over rows and their seeded bootstrap
tasks.py           rows + metrics + limits = a task, tokenised once for any number of models
harness_names.py   tasks of lm-evaluation-harness by name: metric, unit, direction, without their data
harness.py         the live model through them
run.py             evaluate(model, tasks): one model, all its metrics
"""

from __future__ import annotations

from mergetool.evaluate.harness import Harness, HarnessTask
from mergetool.evaluate.instruments import Instruments
from mergetool.evaluate.judge import JudgeSettings
from mergetool.evaluate.metrics import METRICS, Metric
from mergetool.evaluate.passes import Reference, refer, reference_scores
from mergetool.evaluate.run import evaluate, measure
from mergetool.evaluate.suites import SUITES
from mergetool.evaluate.tasks import Task, prepare
from mergetool.exports import make_callable

__all__ = [
    "METRICS",
    "SUITES",
    "Harness",
    "HarnessTask",
    "Instruments",
    "JudgeSettings",
    "Metric",
    "Reference",
    "Task",
    "evaluate",
    "measure",
    "prepare",
    "refer",
    "reference_scores",
]

make_callable(__name__)
