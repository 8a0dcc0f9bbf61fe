"""A name of the Hub stands for one commit in a run, whatever happens to the repository meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.hub.commits import Pinned
from tests.hub.program import Program
from tests.hub.server import StandIn

PIN = "from mergetool import hub\nresult = hub.pin('lab/moving').commit"


@pytest.fixture
def moving(hub: StandIn, triple: dict[str, Path], mergetool: Program) -> dict[str, str]:
    hub.store.add("lab/moving", triple["sft"], card={"license": "mit"})
    mergetool.python("from mergetool import hub\nhub.forget()\nresult = None")
    return hub.store.repositories["models", "lab/moving"].refs


def test_a_name_is_asked_about_once_and_stays_at_its_commit(
    hub: StandIn, mergetool: Program, triple: dict[str, Path], moving: dict[str, str]
) -> None:
    first = moving["main"]
    with hub.counted() as asked:
        assert mergetool.python(PIN) == first
        hub.store.add("lab/moving", triple["rlhf"])
        assert hub.store.repositories["models", "lab/moving"].refs["main"] != first
        assert mergetool.python(PIN) == first
    assert len(asked) == 1


def test_a_process_that_was_handed_commits_reads_those(
    hub: StandIn, mergetool: Program, triple: dict[str, Path], moving: dict[str, str]
) -> None:
    code = "from mergetool import hub\nhub.pin('lab/moving')\nresult = [[*key, value] for key, value in hub.pins().items()]"
    ((*key, commit),) = mergetool.python(code)
    assert (key, commit) == (["model", "lab/moving", "main"], moving["main"])
    hub.store.add("lab/moving", triple["rlhf"])
    handed = f"from mergetool import hub\nhub.forget()\nhub.hold({{tuple({key!r}): {commit!r}}})\n"
    assert mergetool.python(handed + "result = hub.pin('lab/moving').commit") == commit


def test_files_and_card_come_with_the_commit(mergetool: Program, triple: dict[str, Path], moving: dict[str, str]) -> None:
    code = "from mergetool import hub\none = hub.pin('lab/moving')\n"
    sizes, card = mergetool.python(code + "result = [{n: f.size for n, f in one.files.items()}, one.card]")
    assert sizes["model.safetensors"] == (triple["sft"] / "model.safetensors").stat().st_size
    assert card["license"] == "mit"


@pytest.mark.parametrize(("revision", "name"), [("main", "org/m"), ("v1", "org/m@v1")])
def test_the_name_is_what_a_recipe_would_write(revision: str, name: str) -> None:
    assert Pinned("org/m", "model", revision, "0" * 40).name == name
