"""The version has one home, which the package, its metadata and the command line read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import mergetool
from mergetool.version import __version__

ROOT = Path(__file__).parent.parent


def test_the_package_and_its_metadata_have_the_one_version() -> None:
    assert mergetool.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    home = ROOT / settings["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{__version__}"' in home.read_text()
