"""What a reader who has not seen a study before needs: the words, what was compared on what, and what to type next."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mergetool.study.analysis.choose import Summary

MODEL = "MODEL"


def glossary(summary: Summary) -> str:
    """SFT, RLHF and tax, and the letters of candidates' names, in three sentences."""
    gain, keep = summary.reward.name, summary.tax.name
    letters = "w is the share of RLHF in a merge, p the density that a sparsifier leaves, K the steps between online merges."
    return (
        "sft is the model that everything is compared with, and rlhf is what came of it, or a second model. "
        f"The first axis is {gain}, what rlhf should be better at; the second is {keep}, what should stay: what is lost of "
        f"it is the tax. {letters}"
    )


def compared_sentence(summary: Summary, rows: list[dict[str, Any]]) -> str:
    """How many candidates, on how many rows of each metric, and when."""
    first = next((row for row in rows if row.get("scores")), None)
    if first is None:
        return "Nothing was measured."
    counts = {split: Counter() for split in ("validation", "test")}
    for split, found in counts.items():
        for column in summary.columns:
            found[column.name.rpartition(".")[0]] = first["scores"][split][column.name]["n"]
    each = ", ".join(
        f"{entry} {counts['validation'][entry]} rows to choose on and {count} to report"
        for entry, count in counts["test"].items()
        if entry != "weights"
    )
    made = sorted(row["time"] for row in rows if row.get("time"))
    when = f", measured {made[0][:10]}" if made else ""
    several = f" to {made[-1][:10]}" if made and made[-1][:10] != made[0][:10] else ""
    return f"{len(summary.groups)} candidates{when}{several}: {each}."


def next_steps(summary: Summary, out: Path) -> list[dict[str, str]]:
    """What to type next, each with what it is for."""
    chosen = summary.group(summary.choice.group) if summary.choice.group else None
    if chosen is None or chosen.is_model:
        return []
    if (out / "model" / "config.json").exists():
        return [
            {"what": "Make it again:", "command": f"mergetool merge {out.name}/recipe.yaml {MODEL}"},
            {"what": "Publish it:", "command": f"mergetool push {out.name}/model me/NAME --results {out.name}"},
        ]
    return [{"what": "Write its checkpoint:", "command": f"mergetool compare STUDY.yaml {out.name} --save best"}]
