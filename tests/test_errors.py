"""An error is one line: what is wrong and where, then the next thing to do; no token is in it."""

from __future__ import annotations

import errno
import json
import os
import pickle
from urllib.parse import quote

import pytest

from mergetool.errors import CheckpointError, HubError, MergetoolError, RecipeError, explained, nearest, plain, without_tokens
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


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a", None, "b"), "b: the disk is full; make room and run again"),
        (OSError(errno.EFBIG, "File too large", "a"), "a: the disk is full; make room and run again"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; check its permissions"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; close programs, or raise `ulimit -n`"),
        (OSError(errno.EIO, "Input/output error", "a"), "a: Input/output error; check the disk and permissions"),
        (Exception("I/O error: No space left on device (os error 28)"), "the disk is full; make room and run again"),
        (MemoryError(), "there is not enough memory; close programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "there is not enough memory; close programs"),
        (RecipeError("r: wrong", "correct it"), "r: wrong; correct it"),
    ],
    ids=repr,
)
def test_what_the_system_refuses_is_one_line(error: Exception, told: str) -> None:
    assert str(explained(error)).startswith(told)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RecursionError(), AssertionError(), RuntimeError("x")])
def test_what_is_left_is_a_bug(error: Exception) -> None:
    assert explained(error) is None


def test_what_a_library_stumbles_over_after_a_full_disk_is_the_full_disk() -> None:
    def library() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "shard")
        except OSError:
            raise ValueError("I/O operation on closed file")  # noqa: B904

    with pytest.raises(ValueError, match="closed") as error:
        library()
    assert str(explained(error.value)) == "shard: the disk is full; make room and run again"


def test_names_do_not_steer_a_terminal() -> None:
    assert plain("\x1b[31ma\u202eb\x9b2J\tc\n") == "\\x1b[31ma\\u202eb\\x9b2J\tc\n"
    assert str(MergetoolError("tensor \x1b]0;title\x07")) == "tensor \\x1b]0;title\\x07"


@pytest.mark.parametrize("key", ["clé-très-secrète", "with space+and/sign", 'quote"d\\key', "a-secret-of-mine"])
def test_a_key_is_not_printed_in_any_form_that_a_library_gives_it(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "JUDGE_API_KEY", key)
    forms = [key, repr(key), ascii(key), str(f"Bearer {key}".encode()), json.dumps({"k": key}), quote(key), quote(key, safe="")]
    for form in forms:
        assert "***" in without_tokens(f"header {form}!"), form


def test_an_address_loses_its_user_and_password(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "http://me:pa55@hub.example:80/api and https://hub.example/a@b cannot be reached"
    assert without_tokens(said) == "http://***@hub.example:80/api and https://hub.example/a@b cannot be reached"
