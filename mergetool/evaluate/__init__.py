"""Reward and tax of one model: completion log-probabilities, greedy answers, public benchmarks, and the metrics of them.

metrics/           one file a metric: what its number means, and how it is computed for each data row
harness/           public benchmarks: lm-evaluation-harness, and the suites of papers
rows.py            the kinds of data rows
tokens.py          rows -> token ids, cut where TRL's DPO trainer cuts them
loading.py         models and tokenizers from checkpoints
logprobs.py        summed log-probability of each completion, logits for completion tokens alone
divergence.py      exact KL of two models over completions
greedy.py          greedy answers
unicode_scripts.py which scripts an answer is written in
reward_model.py    scores of a sequence-classification model
judge.py           verdicts over an OpenAI-compatible endpoint; verdicts.py keeps them
instruments.py     reward models and judges, made once
tasks.py           rows + metrics + limits = a task, tokenised once for any number of models
passes.py          one model over one task: what several metrics read is made once
interval.py        statistics over rows and their seeded bootstrap
paired.py          differences between models on the same rows, over draws of rows, prompts and seeds
run.py             evaluate(model, tasks): one model, all its metrics
"""

from __future__ import annotations

from mergetool.evaluate.harness import SUITES, Harness, HarnessTask
from mergetool.evaluate.instruments import Instruments
from mergetool.evaluate.judge import JudgeSettings
from mergetool.evaluate.metrics import METRICS, Metric
from mergetool.evaluate.passes import ReferenceScores, refer, reference_scores
from mergetool.evaluate.run import evaluate, measure
from mergetool.evaluate.tasks import Task, prepare
from mergetool.exports import make_callable

Reference = ReferenceScores  # its name before there were three classes of that name

__all__ = [
    "METRICS",
    "SUITES",
    "Harness",
    "HarnessTask",
    "Instruments",
    "JudgeSettings",
    "Metric",
    "Reference",
    "ReferenceScores",
    "Task",
    "evaluate",
    "measure",
    "prepare",
    "refer",
    "reference_scores",
]

make_callable(__name__)
