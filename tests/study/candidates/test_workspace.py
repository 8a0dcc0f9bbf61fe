"""A candidate's directory is its own: never taken for another candidate's, and nothing else is ever cleared."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study.candidates.workspace import Workspace, slug
from tests.study import tiny


@pytest.fixture
def workspace(folder, tmp_path):
    return Workspace(tiny.study(folder), tmp_path)


def made(workspace, name, identity):
    directory, same = workspace.claim(name, [identity], "merge", {"merge_method": "linear"})
    directory.mkdir(exist_ok=True)
    for file in ("config.json", "mergetool.json"):
        (directory / file).write_text("{}")
    return same


def test_names_become_directories():
    assert slug("ondare K=5 Σα=0.1 β=0.1 seed=0") == "ondare-K5-sumalpha0.1-beta0.1-seed0"
    assert slug("../…") == "candidate"


def test_a_directory_holds_what_its_note_says_and_no_other_candidate(workspace):
    assert not workspace.holds("x y", ["abc"])
    assert not made(workspace, "x y", "abc")
    assert workspace.holds("x y", ["abc"])
    assert not workspace.holds("x y", ["abd"])
    note = workspace.directory("x y").with_name("x-y.yaml").read_text()
    assert note.startswith("# mergetool merge x-y.yaml x-y   (made by `mergetool compare`, abc)\nmerge_method: linear\n")
    assert workspace.holds("x y", ["abd", "abc"]), "an earlier identity is its own too"
    (workspace.directory("x y") / "config.json").unlink()
    assert not workspace.holds("x y", ["abc"]), "what is not whole is not held"


def test_claiming_clears_what_another_candidate_left_and_nothing_that_is_not_ours(workspace):
    made(workspace, "x", "abc")
    (workspace.directory("x") / "old").write_text("")
    assert not workspace.claim("x", ["new"], "merge", {})[1]
    assert not workspace.directory("x").exists()
    assert workspace.claim("x", ["new"], "merge", {})[1], "the same candidate's work may resume"
    theirs = workspace.directory("y")
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    workspace.claim("y", ["abc"], "merge", {})
    assert (theirs / "letter.txt").exists()


def test_models_are_known_by_name_and_by_what_they_hold(folder, tmp_path):
    workspace = Workspace(tiny.study(folder, models={"base": "sft", "sft": "sft", "rlhf": "rlhf"}), tmp_path)
    assert list(workspace.models) == ["SFT", "BASE", "RLHF"]
    assert workspace.identities["SFT"] == workspace.identities["BASE"] != workspace.identities["RLHF"]
    with pytest.raises(MergetoolError, match="nowhere"):
        Workspace(tiny.study(folder, models={"sft": "nowhere"}, candidates=[{"name": "x", "checkpoint": "sft"}]), tmp_path)
