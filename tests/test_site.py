"""The documentation site has every page, and the generated ones are those of this code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tools.recipe_reference import page

ROOT = Path(__file__).parent.parent


def pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [name for part in (entry if isinstance(entry, list) else entry.values()) for name in pages(part)]


def test_every_page_of_the_docs_is_in_the_navigation_once() -> None:
    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_recipe_reference_is_that_of_the_models_that_read_recipes() -> None:
    assert (ROOT / "docs/recipe-reference.md").read_text() == page(), "make docs writes it anew"
