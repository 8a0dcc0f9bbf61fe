"""Local tasks of lm-evaluation-harness: YAML and data that need no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mergetool.evaluate import HarnessTask

QUIZ = [
    {"q": f"{at} plus {at}?", "choices": [str(2 * at), str(2 * at + 1), f"{at} {at} {at}"], "label": at % 3} for at in range(20)
]
SAY = [{"q": f"say {at}", "a": str(at)} for at in range(18)]

_QUIZ = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{q}}}} A:"
doc_to_target: label
doc_to_choice: choices
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
_SAY = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: say.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4, do_sample: false}}
metric_list:
  - {{metric: {metric}}}
"""


def tasks(folder: Path) -> Path:
    """quiz_a, quiz_b (half as many documents), their groups pooled and plain, say_em, say_bleu, and the tag quizzes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("a", QUIZ), ("b", QUIZ[:10]), ("say", SAY)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a", "b"):
        (folder / f"quiz_{name}.yaml").write_text(_QUIZ.format(name=f"quiz_{name}", data=f"{name}.jsonl") + "tag: quizzes\n")
    for name, metric in (("say_em", "exact_match"), ("say_bleu", "bleu")):
        (folder / f"{name}.yaml").write_text(_SAY.format(name=name, metric=metric))
    for name, pooled in (("pooled", True), ("plain", False)):
        (folder / f"{name}.yaml").write_text(
            f"group: {name}\ntask: [quiz_a, quiz_b]\naggregate_metric_list:\n"
            f"  - {{metric: acc, aggregation: mean, weight_by_size: {str(pooled).lower()}}}\n"
        )
    return folder


def task(folder: Path, *names: str, **changes: Any) -> HarnessTask:
    """These local tasks, as `mergetool evaluate` would measure them."""
    return HarnessTask("public", names, include=(folder,), **changes)
