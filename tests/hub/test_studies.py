"""Studies read the Hub as merges do: the commit is what a candidate is known by, and test scores go into a card."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import yaml

from tests.hub.program import Program
from tests.hub.server import StandIn
from tests.hub.store import OWNER
from tests.study import tiny


@pytest.fixture(scope="module")
def study(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three repositories; its rows are files."""
    folder = tiny.triple(tmp_path_factory.mktemp("study"))
    for name in ("base", "sft", "rlhf"):
        hub.store.add(f"lab/{name}", folder / name, card={"license": "mit"})
    path = folder / "study.yaml"
    models = {name: f"lab/{name}" for name in ("base", "sft", "rlhf")}
    candidates = [{"name": "linear", "merge": {"merge_method": "linear", "weight": 0.25}}]
    path.write_text(yaml.safe_dump(tiny.mapping(models=models, candidates=candidates)))
    return path


@pytest.mark.slow
def test_a_study_is_checked_from_headers_and_goes_on_after_a_push_with_what_has_changed(
    hub: StandIn, mergetool: Program, study: Path, tmp_path: Path
) -> None:
    with hub.counted() as asked:
        assert mergetool("check", study).code == 0
    assert sum(one.weights for one in asked) == 0
    first = mergetool("compare", study, tmp_path / "out", "--json")
    assert json.loads(first.out)["ran"] == 4, first
    with hub.counted() as asked:
        again = mergetool("compare", study, tmp_path / "out", "--json")
    assert json.loads(again.out)["ran"] == 0
    assert sum(one.weights for one in asked) == 0
    # the owner of RLHF pushes: what is made of it is measured again, and nothing else
    rlhf = hub.store.repositories["models", "lab/rlhf"]
    rlhf.commit(hub.store.repositories["models", "lab/sft"].tree())
    mergetool.python("from mergetool.fingerprints import checkpoint_identity as c; c.cache_clear()")
    third = json.loads(mergetool("compare", study, tmp_path / "out", "--json").out)
    assert third["ran"] == 2


def test_models_of_another_architecture_are_refused_before_any_weights(
    hub: StandIn, mergetool: Program, study: Path, tmp_path: Path
) -> None:
    from tests.helpers import random_weights, write_checkpoint

    hub.store.add("lab/other", write_checkpoint(tmp_path / "other", random_weights(0)))
    content = yaml.safe_load(study.read_text())
    content["models"]["rlhf"] = "lab/other"
    (other := study.with_name("other.yaml")).write_text(yaml.safe_dump(content))
    with hub.counted() as asked:
        result = mergetool("compare", other, tmp_path / "out")
    assert result.code == 2, result
    assert "lab/other" in result.line
    assert "take checkpoints of one architecture and size" in result.line
    assert sum(one.weights for one in asked) == 0
    assert not (tmp_path / "out").exists()


def test_test_scores_of_the_very_recipe_go_into_the_card(hub: StandIn, mergetool: Program, study: Path, tmp_path: Path) -> None:
    assert mergetool("compare", study, tmp_path / "study").code == 0
    recipe = {
        "merge_method": "linear",
        "models": [{"model": "lab/sft", "parameters": {"weight": 0.75}}, {"model": "lab/rlhf", "parameters": {"weight": 0.25}}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert mergetool("merge", tmp_path / "recipe.yaml", tmp_path / "merged").code == 0
    words = ["push", tmp_path / "merged", "me/measured", "--results", tmp_path / "study"]
    result = mergetool(*words, token=OWNER)
    assert result.code == 0, result
    assert "nothing was uploaded" in mergetool(*words, token=OWNER).err
    text = hub.store.repositories["models", "me/measured"].tree()["README.md"].data.decode()
    index = yaml.safe_load(text.split("---")[1])["model-index"][0]
    rows = [json.loads(line) for line in (tmp_path / "study" / "results.jsonl").read_text().splitlines()]
    scores = next(row for row in rows if row["name"] == "linear w=0.25")["scores"]["test"]
    found = {(one["dataset"]["name"], m["type"]): m["value"] for one in index["results"] for m in one["metrics"]}
    assert found == {tuple(name.split(".")): score["value"] for name, score in scores.items()}
    assert index["name"] == "measured"
    assert f"| pairs, test | preference accuracy | {scores['pairs.preference_accuracy']['value']:.4f} |" in text

    recipe["models"][1]["parameters"]["weight"] = 0.5
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    assert mergetool("merge", tmp_path / "other.yaml", tmp_path / "other").code == 0
    words[1:3] = [tmp_path / "other", "me/unmeasured"]
    refused = mergetool(*words, token=OWNER)
    assert refused.code == 2
    assert "no candidate has this result's recipe (measured there: linear w=0.25)" in refused.line
    assert ("models", "me/unmeasured") not in hub.store.repositories


def test_workers_read_the_commits_that_were_checked(hub: StandIn, mergetool: Program, study: Path) -> None:
    """They travel with the recipe, and hold although the branch has moved."""
    base = hub.store.repositories["models", "lab/base"]
    checked = base.refs["main"]
    recipe = tiny.study(study.parent)
    recipe.pin({("model", "lab/base", "main"): checked})
    assert pickle.loads(pickle.dumps(recipe)).commits == {("model", "lab/base", "main"): checked}
    base.commit(base.tree(), message="moved")
    code = "from mergetool import hub; hub.forget(); hub.hold({}); result = hub.pin('lab/base').commit"
    assert mergetool.python(code) == base.refs["main"] != checked
    held = f"{{('model', 'lab/base', 'main'): {checked!r}}}"
    assert mergetool.python(code.replace("{}", held)) == checked
