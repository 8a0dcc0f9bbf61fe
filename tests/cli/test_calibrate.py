"""mergetool calibrate: a file and one line; what cannot be calibrated is one line and exit 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mergetool.activations import Calibration
from mergetool.cli.main import app
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_checkpoint(tmp_path / "sft", random_weights(0))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"w{i} w{i + 1} w{i * 2}"}) + "\n" for i in range(9)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["calibrate", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_it_says_what_it_made_and_the_second_time_that_it_was_there(here: Path) -> None:
    code, out, err = run("sft", "c.safetensors", "--data", "rows.jsonl", "--limit", "8", "--rank", "7")
    assert (code, err) == (0, "")
    assert "maps of sft on 8 rows, 24 tokens" in out
    found = Calibration.load(here / "c.safetensors")
    assert max(site.rank for site in found.sites.values() if not site.diagonal) == 7
    code, out, err = run("sft", "c.safetensors", "--data", "rows.jsonl", "--limit", "8", "--rank", "7", "--json")
    facts = json.loads(out)
    assert (code, facts["already_done"], facts["rows"]["rows"], facts["sites"]) == (0, True, 8, len(found.sites))
    assert str(here) not in out


def test_several_sources_are_read_one_after_the_other(here: Path) -> None:
    (here / "more.jsonl").write_text('{"prompt": "w1 w2"}\n')
    assert run("sft", "c.safetensors", "--data", "rows.jsonl", "--data", "more.jsonl")[0] == 0
    assert Calibration.load(here / "c.safetensors").facts["rows"] | {"identity": ""} == {
        "sources": ["rows.jsonl", "more.jsonl"], "identity": "", "rows": 10, "empty": 0, "tokens": 29,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sft", "c", "--data", "missing.jsonl"), "no such file"),
        (("nowhere", "c", "--data", "rows.jsonl"), "nowhere"),
        (("sft", "c", "--data", "rows.jsonl", "--energy", "2"), "--energy is 2.0"),
        (("sft", "c", "--data", "rows.jsonl", "--memory", "much"), "--memory 'much' is not a size"),
        (("sft", "rows.jsonl", "--data", "rows.jsonl"), "exists and is no calibration"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(here: Path, words: tuple[str, ...], message: str) -> None:
    before = sorted(p.name for p in here.iterdir())
    code, _, err = run(*words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert sorted(p.name for p in here.iterdir()) == before
