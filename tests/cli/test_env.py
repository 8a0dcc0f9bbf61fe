"""mergetool env prints what a bug report needs."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version

from mergetool.version import __version__
from tests.cli.shell import run


def test_versions_processor_and_gpus_are_told() -> None:
    found = json.loads(run("env", "--json")[0])
    assert (found["mergetool"], found["python"]) == (__version__, platform.python_version())
    assert found["transformers"] == version("transformers")
    assert found["cores"] >= 1
    assert f"trl: {version('trl')}\n" in run("env")[0]
