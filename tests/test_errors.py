"""An error is one line: what is wrong and where, then the next thing to do; no token is in it."""

from __future__ import annotations

import os
import pickle

import pytest

from mergetool.errors import CheckpointError, HubError, MergetoolError, RecipeError, nearest, without_tokens
from tests.hub.store import OWNER


def test_message_and_next_step_are_one_line() -> None:
    error = RecipeError("recipe.yaml: two\n  lines", "correct\tit")
    assert str(error) == "recipe.yaml: two lines; correct it"
    assert (error.message, error.hint) == ("recipe.yaml: two lines", "correct it")
    assert str(MergetoolError("alone")) == "alone"


def test_whoever_catches_a_checkpoints_errors_catches_the_hubs() -> None:
    assert issubclass(HubError, CheckpointError)
    assert issubclass(CheckpointError, MergetoolError)
    assert not issubclass(MergetoolError, OSError)


def test_an_error_crosses_from_a_worker_with_its_kind_and_its_line() -> None:
    error = RecipeError("density: out of range", "lower it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is RecipeError
    assert str(again) == str(error)


@pytest.mark.parametrize(
    ("word", "says"),
    [("densty", "did you mean 'density'?"), ("Density", "did you mean 'density'?"), ("xyz", "known: alpha, density")],
)
def test_the_nearest_word_is_named_or_else_all_of_them(word: str, says: str) -> None:
    assert nearest(word, ["density", "alpha"]) == says


def test_errors_lose_whatever_looks_like_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(MergetoolError(f"sent {OWNER}", f"not {OWNER}")) == "sent hf_***; not hf_***"
    assert without_tokens("hf_hub_download, hf_api and hf_transfer are no tokens") == (
        "hf_hub_download, hf_api and hf_transfer are no tokens"
    )
    monkeypatch.setitem(os.environ, "OTHER_API_KEY", "a-secret-of-mine")
    assert without_tokens("key=a-secret-of-mine") == "key=***"
