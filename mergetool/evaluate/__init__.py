"""Reward and tax of one model: completion log-probabilities, greedy answers, and the metrics made of them.

metrics.py    THE table: name, unit, which way is better, what it needs
tokens.py     rows -> token ids, cut where TRL's DPO trainer cuts them
logprobs.py   summed log-probability of each completion, logits for completion tokens alone
greedy.py     greedy answers and how they are compared
interval.py   seeded bootstrap over rows
tasks.py      rows + metrics + limits = a task, tokenised once for any number of models
run.py        evaluate(model, tasks): one model, all its metrics
"""

from __future__ import annotations

from mergetool.evaluate.metrics import METRICS, Metric
from mergetool.evaluate.run import evaluate, measure, reference_scores
from mergetool.evaluate.tasks import Task, prepare

__all__ = ["METRICS", "Metric", "Task", "evaluate", "measure", "prepare", "reference_scores"]
