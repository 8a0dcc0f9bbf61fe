"""Paired differences of models on the same rows: scores row by row, kept, and their differences with intervals.

    python -m tools.paired SPEC.yaml ROWS.json            # scores what ROWS.json lacks, then prints the table
    python -m tools.paired SPEC.yaml ROWS.json --plot FILE.png          # and draws the first task against each of the others

SPEC.yaml:

    sft: DIRECTORY                  # the reference of margins
    against: NAME                   # whose scores are taken from every other's
    rows:                           # what is measured: rows and one metric of mergetool evaluate
      harmless: {data: pairs.jsonl.gz, metric: reward_margin, limit: 64, max_length: 160}
      news: {data: news.jsonl.gz, metric: nll, limit: 64}
    models:                         # a checkpoint, or a merge recipe; SEED stands for each of `seeds`
      adamw: runs/adamw-SEED
      null_space: {merge_method: null_space, base_model: sft, models: [...], calibration: {data: rows.jsonl.gz}}
    seeds: [0, 1]

A group's difference is the mean over its seeds of each row's difference, its interval as `mergetool.evaluate.paired` takes it:
the middle 95 % of 2,000 draws of rows and seeds with replacement; a ratio (nats per token) is taken of sums, as the metric
itself is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from mergetool.evaluate import METRICS, paired
from mergetool.evaluate.paired import Difference, over_draws


def score(spec: dict[str, Any], kept: Path) -> dict[str, Any]:
    """Row by row scores of every model and seed: name -> seed -> task -> the metric's columns."""
    from mergetool.data import completions, preference_rows
    from mergetool.evaluate import Task, measure, prepare, refer
    from mergetool.hub.loading import load_tokenizer
    from mergetool.study.execution.live_model import LiveModel

    found: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    seeds = [str(seed) for seed in spec.get("seeds", [0])]
    wanted = [(name, seed) for seed in seeds for name in spec["models"] if seed not in found.get(name, {})]
    if not wanted:
        return found
    tokenizer, live, tasks = load_tokenizer(Path(spec["sft"])), LiveModel(Path(spec["sft"])), {}
    for name, one in spec["rows"].items():
        pairs = METRICS[one["metric"]].rows == "preferences"
        source, limit = Path(one["data"]), one.get("limit")
        rows = preference_rows(source, limit)[0] if pairs else completions(source, limit)
        tasks[name] = prepare(Task(name, (one["metric"],), rows, max_length=one.get("max_length", 1024)), tokenizer)
    references = {name: refer(live.model, task, tokenizer) for name, task in tasks.items()}
    for name, seed in wanted:
        what = json.loads(json.dumps(spec["models"][name]).replace("SEED", seed))
        live.put_merge(what, name) if isinstance(what, dict) else live.put_checkpoint(Path(what))
        columns = {}
        for task, prepared in tasks.items():
            (scores,) = measure(live.model, prepared, tokenizer, references[task]).values()
            columns[task] = [[float(value) for value in column] for column in scores["rows"]]
        found.setdefault(name, {})[seed] = columns
        kept.write_text(json.dumps(found))
        print(f"scored {name}, seed {seed}", flush=True)
    return found


def difference(ours: dict[str, Any], theirs: dict[str, Any], task: str, metric: str) -> tuple[float, Difference]:
    """One model's score on a task, and its difference from another's, over the seeds that both have."""
    seeds = [seed for seed in ours if seed in theirs] or list(ours)
    own = [ours[seed][task] for seed in seeds]
    other = [theirs[seed][task] for seed in seeds if seed in theirs] or [next(iter(theirs.values()))[task]]
    statistic = METRICS[metric].statistic
    mine = over_draws(own, statistic, stream=task)
    return mine.value, paired.difference(mine, over_draws(other, statistic, stream=task))


def table(spec: dict[str, Any], found: dict[str, Any]) -> str:
    """Means, and differences from `against` with their intervals, as Markdown."""
    tasks = list(spec["rows"])
    lines = ["| model | seeds | " + " | ".join(tasks) + " |", "|---|---|" + "---|" * len(tasks)]
    for name in (name for name in spec["models"] if name in found):
        cells = []
        for task in tasks:
            mean, away = difference(found[name], found[spec["against"]], task, spec["rows"][task]["metric"])
            told = f" ({away.mean:+.4f} [{away.low:+.4f}, {away.high:+.4f}])"
            cells.append(f"{mean:.4f}" + ("" if name == spec["against"] else told))
        lines.append(f"| {name} | {len(found[name])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(spec: dict[str, Any], found: dict[str, Any], path: Path) -> None:
    """Differences from `against`: the first task's on the x axis, each other task's on a y axis of its own, bars 95 %."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, *others = spec["rows"]
    figure, axes = plt.subplots(1, len(others), figsize=(4.6 * len(others), 4.2), layout="constrained", squeeze=False)
    names = [name for name in spec["models"] if name in found]
    for at, task in enumerate(others):
        for i, name in enumerate(names):
            other, rows = found[spec["against"]], spec["rows"]
            x, y = (difference(found[name], other, which, rows[which]["metric"])[1] for which in (first, task))
            axes[0][at].errorbar(
                x.mean, y.mean, xerr=[[x.mean - x.low], [x.high - x.mean]], yerr=[[y.mean - y.low], [y.high - y.mean]],
                fmt="os^vDP*X"[i % 8], color=f"C{i}", label=name, elinewidth=0.7, alpha=0.9,
            )  # fmt: skip
        axes[0][at].set_xlabel(f"{first}: difference from {spec['against']}")
        axes[0][at].set_title(f"{task}: difference from {spec['against']}", fontsize=10)
        axes[0][at].grid(alpha=0.25)
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    spec = yaml.safe_load(asked.spec.read_text(encoding="utf-8"))
    found = score(spec, asked.rows)
    print(table(spec, found))
    if asked.plot:
        draw(spec, found, asked.plot)


if __name__ == "__main__":
    main()
