"""What an editor sees: the Python in the documents has no type errors, and every public name has a type.

`make check` runs pyright over the package itself.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.test_exports import NAMES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What the documents' prose says is there before an example begins.
PROSE = """
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

model: PreTrainedModel
tokenizer: PreTrainedTokenizerBase
base: str
sft: str
adapter: str
pairs: Dataset
"""
MISTAKES = """import mergetool
mergetool.mrege
mergetool.merge(1, "out")
mergetool.OnDARE([], lr="x")
"""
RIGHT = """import mergetool
import mergetool.merge as m
from mergetool import align, merge
from mergetool.merge import merge_tensors, plan_merge

mergetool.OnDARE([], lr=1e-6).step()
manifest: dict = mergetool.merge({"merge_method": "linear"}, "out", seed=1)
steps: int = align("recipe.yaml", "out").steps
merge(m.merge_recipe({}), "out")
name, tensor = next(merge_tensors(plan_merge(m.load_merge_recipe("recipe.yaml"))))
"""
GIVEN = "from prose import adapter, base, model, pairs, sft, tokenizer\n"


def said_of(folder: Path) -> dict[str, list[dict]]:
    """File -> what pyright (basic) says of it."""
    config = {"include": ["."], "extraPaths": [str(ROOT)], "typeCheckingMode": "basic", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    words = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", str(folder)]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.stdout.startswith("{"), f"pyright does not run: {found.stdout}{found.stderr}"
    said = defaultdict(list)
    for one in json.loads(found.stdout)["generalDiagnostics"]:
        said[Path(one["file"]).name].append(one)
    return said


def errors(said: list[dict]) -> list[str]:
    """The errors in a file, without those about public names of other packages, which their own documents import so too."""
    foreign = re.compile(r'is not exported from module "(trl|datasets|accelerate|peft)"')
    return [
        f"line {one['range']['start']['line']}: {one['message']}"
        for one in said
        if one["severity"] == "error" and not foreign.search(one["message"])
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)  # ten seconds of reading torch and transformers; more on a machine that is busy
def test_the_python_of_the_documents_has_no_error_every_public_name_a_type_and_a_mistake_is_seen(tmp_path: Path) -> None:
    """In one run of pyright, which reads the types of torch, transformers and TRL once."""
    (tmp_path / "prose.pyi").write_text(PROSE)
    examples = {
        f"{document.stem}_{at}.py": code
        for document in DOCUMENTS
        for at, code in enumerate(BLOCK.findall(document.read_text()))
    }
    for file, code in examples.items():
        (tmp_path / file).write_text(code if "from __future__" in code else GIVEN + code)
    asked = ["import mergetool"]
    asked += [f"from {package} import {name} as n{at}" for at, (package, name) in enumerate(NAMES)]
    asked += [f"reveal_type(n{at})" for at in range(len(NAMES))]
    verbs = [(package, name) for package, name in NAMES if package == "mergetool"]
    asked += [f"reveal_type(mergetool.{name})" for _, name in verbs]
    (tmp_path / "names.py").write_text("\n".join(asked) + "\n")
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    said = said_of(tmp_path)

    assert len(examples) > 5
    assert {file: errors(said[file]) for file in examples} == {file: [] for file in examples}

    assert errors(said["names.py"]) + errors(said["right.py"]) == []
    types = [one["message"].split(" is ", 1)[1] for one in said["names.py"] if one["severity"] == "information"]
    for (package, name), shown in zip(NAMES + verbs, types, strict=True):
        assert shown not in ('"object"', '"Any"', '"Unknown"'), f"{package}.{name}: {shown}"
        value = getattr(importlib.import_module(package), name)
        if callable(value) and not isinstance(value, type):
            assert " -> " in shown, f"{package}.{name}: {shown}"

    assert {one["range"]["start"]["line"] for one in said["mistakes.py"] if one["severity"] == "error"} == {1, 2, 3}
