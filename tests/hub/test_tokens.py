"""A token is printed nowhere: not in lines, logs, cards and manifests, and not in the traceback of a bug of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.hub.program import environment
from tests.hub.server import Fault, StandIn
from tests.hub.store import OWNER

# A bug in the middle of a push, whose message and whose library's message hold the token.
BUG = """
import sys
from mergetool.hub import push
from mergetool.cli.main import main
def broken(*args):
    from huggingface_hub import get_token
    raise KeyError(f"Authorization: Bearer {get_token()}")
push._local_files = broken
sys.argv = ["mergetool", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def recipe(hub: StandIn, triple: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("sft", "rlhf"):
        hub.store.add(f"me/{name}", triple[name], private=True)
    models = [{"model": f"me/{m}", "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    return path


def run(url: str, home: Path, program: list[str], *words: object, **more: str) -> tuple[int, str]:
    """A real process of the command line; the exit code, and all that it printed."""
    command = [sys.executable, *program, *map(str, words)]
    found = subprocess.run(command, capture_output=True, text=True, env=environment(url, home, **more), cwd=home)
    return found.returncode, found.stdout + found.stderr


def test_no_output_of_a_merge_and_a_push_holds_the_token(hub: StandIn, recipe: Path, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    words = ("merge", recipe, out, "--push", "me/published", "--json")
    with hub.counted() as asked:
        code, said = run(hub.url, home, ["-m", "mergetool"], *words, HF_TOKEN=OWNER, HF_DEBUG="1", HF_HUB_VERBOSITY="debug")
    assert code == 0, said
    assert any(one.token == OWNER for one in asked), "the token was used"
    assert "Request" in said, "the client's own log is among what was printed"
    assert_nowhere(OWNER, said, out, home)
    pushed = hub.store.repositories["models", "me/published"].tree()
    assert not [name for name, blob in pushed.items() if OWNER.encode() in blob.data]


def assert_nowhere(token: str, said: str, *folders: Path) -> None:
    assert token not in said
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if token.encode() in path.read_bytes()]


def test_the_traceback_of_a_bug_does_not_hold_it_either(hub: StandIn, recipe: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    words = ("merge", recipe, tmp_path / "out", "--push", "me/buggy")
    code, said = run(hub.url, home, ["-c", BUG], *words, HF_TOKEN=OWNER)
    assert code == 1, said
    assert "KeyError" in said
    assert "Traceback" in said
    assert "Authorization: Bearer" in said, "the traceback is whole but for the token"
    assert_nowhere(OWNER, said, tmp_path)


@pytest.mark.parametrize("token", [OWNER + " x", "hf_é" + "x" * 30, "hf_" + "Wrong" * 7])
def test_a_token_that_cannot_be_sent_is_one_line_without_it(hub: StandIn, recipe: Path, mergetool, token: str) -> None:
    for words in (["check", recipe], ["push", recipe.parent, "me/x"]):
        result = mergetool(*words, token=token)
        assert result.code == 2, result
        assert "token" in result.line
        assert token not in result.out + result.err


def test_a_refusal_that_repeats_the_token_is_cleaned(hub: StandIn, recipe: Path, mergetool) -> None:
    """A proxy may put what it was sent into its answer."""
    with hub.counted():
        hub.faults.append(Fault("GET /api/models/me/sft", "echo", times=9))
        result = mergetool("check", recipe, token=OWNER)
    assert result.code == 2
    assert "echoed" in result.line
    assert OWNER not in result.err
