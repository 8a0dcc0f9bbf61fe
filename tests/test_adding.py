"""The page "Where do I add a sparsifier", followed literally: its file and its row, in a copy of the package, merge."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mergetool
from tests.helpers import write_triple

PACKAGE = Path(mergetool.__file__).parent
ARCHITECTURE = Path(__file__).parent.parent / "docs" / "architecture.md"
PAGE = ARCHITECTURE.read_text(encoding="utf-8").partition("### Where do I add a sparsifier\n")[2].partition("\n### ")[0]


def blocks(page: str) -> dict[str, str]:
    """Language -> its fenced blocks, joined; the two of Python are told apart by whether they are a module."""
    found = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    python = [text for language, text in found if language in ("python", "py")]
    return {
        "file": next(text for text in python if text.startswith('"""')),
        "row": next(text for text in python if text.startswith("row(")),
        "recipe": next(text for language, text in found if language == "yaml"),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the page's file and row in it, and a triple with the page's recipe beside it."""
    root, page = tmp_path_factory.mktemp("adding"), blocks(PAGE)
    shutil.copytree(PACKAGE, root / "mergetool", ignore=shutil.ignore_patterns("__pycache__"))
    new = re.search(r"The file `(mergetool/[\w/]+\.py)`", PAGE)
    assert new is not None
    (root / new[1]).write_text(page["file"])
    table, mark = root / "mergetool" / "methods" / "table.py", "    for method in (\n"
    text = table.read_text()
    assert text.count(mark) == 1
    table.write_text(text.replace(mark, mark + page["row"].rstrip() + ",\n"))
    write_triple(root)
    (root / "recipe.yaml").write_text(page["recipe"])
    return root


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mergetool", *words]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=120)


def floored(delta: torch.Tensor, multiple: float) -> torch.Tensor:
    return delta * (delta.abs() > multiple * delta.double().square().mean().sqrt())


def test_the_recipe_merges_and_keeps_what_the_page_says(place: Path) -> None:
    done = run(place, "merge", "recipe.yaml", "out")
    assert done.returncode == 0, done.stderr
    base, sft, rlhf, out = (load_file(place / n / "model.safetensors") for n in ("base", "sft", "rlhf", "out"))
    kept = total = 0
    for name, value in out.items():
        parts = [floored(sft[name] - base[name], 1.0), floored(rlhf[name] - base[name], 2.0)]
        torch.testing.assert_close(value, base[name] + 0.7 * parts[0] + 0.4 * parts[1], rtol=1e-6, atol=1e-6)
        kept, total = kept + int(parts[1].count_nonzero()), total + value.numel()
    told = json.loads((place / "out" / "mergetool.json").read_text())["kept"]
    assert list(told.values())[1] == pytest.approx(kept / total)
    assert 0 < kept < total / 5


def test_the_table_lists_it_and_its_options_are_checked(place: Path) -> None:
    rows = json.loads(run(place, "methods", "--json").stdout)
    assert next(row for row in rows if row["method"] == "floor")["parameters"] == [
        "int8_mask", "lambda", "multiple", "normalize", "weight",
    ]  # fmt: skip
    (place / "wrong.yaml").write_text((place / "recipe.yaml").read_text().replace("multiple: 2", "multiple: -2"))
    refused = run(place, "check", "wrong.yaml")
    assert refused.returncode == 2
    assert "'multiple' is -2" in refused.stderr
