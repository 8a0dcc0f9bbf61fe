"""Lines of results as a study would have written them, without any model."""

from mergetool.study import summarise
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.model import ModelCandidate
from mergetool.study.candidates.run_checkpoint import RunCheckpoint
from mergetool.study.recipe.expand import expand


def row(name, validation, test, **more):
    """A line of results; (accuracy, margin, nll) per split."""
    names = ("pairs.preference_accuracy", "pairs.reward_margin", "skills.nll")
    return {
        "name": name,
        "error": None,
        **more,
        "scores": {
            split: {
                key: {"value": value, "low": value, "high": value, "n": 9} for key, value in zip(names, values, strict=True)
            }
            for split, values in (("validation", validation), ("test", test))
        },
    }


def outcome(study, **scores):
    candidates = expand(study)
    rows = [row(one.name, *scores[one.name.replace(" ", "_").replace("=", "").replace(".", "")]) for one in candidates]
    return summarise(study, candidates, rows)


SCORES = {
    "sft": ((0.5, 0, 1.0), (0.5, 0, 1.0)),
    "base": ((0.4, 0, 3.0), (0.4, 0, 3.0)),
    "rlhf": ((0.7, 0, 2.0), (0.7, 0, 2.0)),
    "linear_w05": ((0.6, 0, 1.2), (0.7, 0, 1.0)),
    "linear_w09": ((0.69, 0, 1.8), (0.69, 0, 1.9)),
    "ties_w09": ((0.68, 0, 1.5), (0.6, 0, 2.5)),
}


def candidates():
    found = [ModelCandidate("sft", "sft", "sft"), ModelCandidate("rlhf", "rlhf", "rlhf")]
    found += [
        AlignCandidate(f"o K={k} seed={seed}", f"o K={k}", "o", "o", {"every": k}, seed)
        for k in ("total", 10, 1)
        for seed in (0, 1)
    ]
    run = AlignCandidate("run", "run", "run", "run", recipe={"merging": {"method": "adamw"}})
    found += [run]
    found += [
        RunCheckpoint(f"run step={s}", f"run step={s}", "run along", "run", {"step": s}, 0, {"a": 1}, run) for s in (30, 4)
    ]
    found += [
        MergeCandidate(f"t {n}", f"t {n}", "t", "t", {"weight": n / 8, "density": 1 / 3}, recipe={"models": "<b>"}, trial=n)
        for n in range(1, 8)
    ]
    return found


def lines():
    found = []
    for at, one in enumerate(candidates()):
        reward = {"sft": 0.5, "rlhf": 0.9}.get(one.name, 0.55 + 0.02 * at)
        made = row(one.name, (reward, 0, 1 + at / 10), (reward, 0, 1 + at / 10), kind=one.kind, settings=one.settings)
        made["recipe"] = one.recipe
        for score in (made["scores"]["test"]["pairs.preference_accuracy"], made["scores"]["test"]["skills.nll"]):
            score["low"], score["high"] = score["value"] - 0.1, score["value"] + 0.2
        made["scores"]["test"]["skills.nll"]["by"] = {"odd": 1.0 + at, "even": 0.5}
        found.append(made)
    return found
