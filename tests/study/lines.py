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


def row_scores(names_and_values, rows=200, noise=0.1, seed=0):
    """Scores row by row: {candidate: {split: {column: mean}}} -> RowScores; what is hard is hard for all.

    The second number of a pair is the candidate's own noise, in place of `noise`.
    """
    import numpy as np

    from mergetool.study.analysis.row_scores import RowColumns

    found = {}
    for at, (name, splits) in enumerate(names_and_values.items()):
        found[name] = {}
        for split, columns in splits.items():
            found[name][split] = {}
            for column, value in columns.items():
                hard = np.random.default_rng([seed, len(split), len(column)]).normal(size=rows)
                own = np.random.default_rng([seed, len(split), len(column), at + 1]).normal(size=rows)
                own -= own.mean()  # the mean is what was asked for
                values = value + hard - hard.mean() + noise * own
                found[name][split][column] = RowColumns((values.tolist(), [1.0] * rows))
    return found


def outcome_by_rows(study, means, distances, **options):
    """A summary of candidates with these mean scores, {name: ((reward, tax) on validation, on test)}, and row scores."""
    names = ("pairs.preference_accuracy", "skills.nll")
    candidates = expand(study)
    made = []
    for one in candidates:
        (reward, tax), (test_reward, test_tax) = means[one.name]
        made.append(
            row(one.name, (reward, 0, tax), (test_reward, 0, test_tax), distances={"sft": distances.get(one.name, 0.0)})
        )
    wanted = {
        name: {split: dict(zip(names, some, strict=True)) for split, some in zip(("validation", "test"), both, strict=True)}
        for name, both in means.items()
    }
    return summarise(study, candidates, made, row_scores(wanted, **options))


MEANS = {
    "sft": ((0.5, 1.0), (0.5, 1.0)),
    "base": ((0.4, 3.0), (0.4, 3.0)),
    "rlhf": ((0.7, 2.0), (0.7, 2.0)),
    "linear w=0.5": ((0.6, 1.2), (0.6, 1.2)),
    "linear w=0.9": ((0.69, 1.501), (0.69, 1.5)),
    "ties w=0.9": ((0.69, 1.5), (0.69, 1.5)),
}
"""linear w=0.9 and ties w=0.9 cannot be told apart."""
AWAY = {"linear w=0.5": 1.0, "linear w=0.9": 2.0, "ties w=0.9": 3.0, "rlhf": 4.0}
