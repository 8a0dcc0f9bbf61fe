"""The command line in a process of its own, whose environment is that of a user with this Hub; started once, asked often.

The client reads its endpoint and its cache from the environment when it is imported, so a process has one of each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of an error."""
        lines = [line for line in self.err.splitlines() if line.startswith("mergetool: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """What a user would have set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS"))}
    ours = {
        "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    root = str(Path(__file__).parents[2])
    return {**kept, **ours, "PYTHONPATH": root, **more}


class Program:
    """Runs mergetool's commands, each as if it were the first of its process."""

    def __init__(self, url: str, home: Path, cwd: Path, **more: str) -> None:
        self.home = home
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=cwd, env=environment(url, home, **more), stderr=(cwd / "stderr.log").open("w"),
        )  # fmt: skip

    def __call__(self, *words: object, token: str | None = None) -> Result:
        """One command."""
        return Result(**self._ask({"words": [str(word) for word in words], "token": token}))

    def python(self, code: str, token: str | None = None) -> Any:
        """Runs code that sets `result`, with the user's own client."""
        found = self._ask({"code": code, "token": token})
        assert "error" not in found, found["error"]
        return found["result"]

    def _ask(self, what: dict) -> dict:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()  # it holds nothing that has to be written
        self._process.wait(timeout=30)


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if asked["token"]:
            os.environ["HF_TOKEN"] = asked["token"]
        answers.write(json.dumps(_code(asked["code"]) if "code" in asked else _words(asked["words"])) + "\n")
        answers.flush()


def _words(words: list[str]) -> dict:
    import logging
    import traceback

    from typer.testing import CliRunner

    from mergetool import hub
    from mergetool.cli.main import app

    hub.forget()
    logging.getLogger("huggingface_hub").handlers.clear()
    result = CliRunner().invoke(app, words)
    error = result.stderr
    if result.exception and not isinstance(result.exception, SystemExit):
        error += "".join(traceback.format_exception(result.exception))
    return {"code": result.exit_code, "out": result.stdout, "err": error}


def _code(code: str) -> dict:
    import traceback

    names: dict = {}
    try:
        exec(code, names)
    except Exception:
        return {"error": traceback.format_exc()}
    return {"result": names.get("result")}


if __name__ == "__main__":
    _main()
