"""What the documents say of the code is what the code says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mergetool.evaluate import METRICS, SUITES
from mergetool.methods import METHODS

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_command_line_reference_is_the_one_that_the_code_generates(tmp_path: Path) -> None:
    words = ["mergetool.cli.main", "utils", "docs", "--name", "mergetool", "--title", "Command line"]
    typer = Path(sys.executable).parent / "typer"
    subprocess.run([typer, *words, "--output", str(tmp_path / "cli.md")], check=True, capture_output=True)
    assert (ROOT / "docs/cli.md").read_text() == (tmp_path / "cli.md").read_text(), "run `make docs`"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands; but the recipes that it names, which take minutes, are small ones here."""
    from transformers import AutoModelForCausalLM

    from mergetool.lab import copy_lab, lab_path

    copy_lab(tmp_path / "lab")
    for name in ("base", "sft"):
        (tmp_path / name).symlink_to(tmp_path / "lab/triple" / name)
    align = yaml.safe_load((ROOT / "recipes/align/dpo-onties.yaml").read_text())
    align["training"] |= {"max_steps": 2, "use_cpu": True}
    align["data"] |= {"limit": 16, "eval_limit": 8}
    study = yaml.safe_load((ROOT / "recipes/study/demo.yaml").read_text())
    study["models"]["rlhf"] = "lab:rlhf"
    study["candidates"] = [{"name": "linear", "merge": {"merge_method": "linear", "weight": [0.4, 0.8]}}]
    for entry in (study["reward"], study["tax"]):
        entry["limit"] = 8
    for path, content in (("align/dpo-onties.yaml", align), ("study/demo.yaml", study)):
        (tmp_path / "recipes" / path).parent.mkdir(parents=True)
        (tmp_path / "recipes" / path).write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    names = {"model": AutoModelForCausalLM.from_pretrained(lab_path("sft"))}
    for code in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(code.replace("workers=2", "workers=1"), "README.md", "exec"), names)
    assert names["manifest"] == json.loads((tmp_path / "out/linear/mergetool.json").read_text())
    assert (tmp_path / "out/onties/model.safetensors").exists()
    assert (tmp_path / "out/study/report.html").exists()
    assert names["study"].failures == []
    assert "model.layers.0" in capsys.readouterr().out


def test_every_method_is_explained() -> None:
    text = (ROOT / "docs/methods.md").read_text()
    assert [name for name in METHODS if f"`{name}`" not in text] == []


def test_every_metric_is_explained_with_its_side_unit_and_direction() -> None:
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    for one in METRICS.values():
        direction = "higher" if one.higher_is_better else "lower"
        assert any(line.startswith(f"| `{one.name}` | {one.side} | {one.unit} | {direction} |") for line in lines), one.name


def test_every_benchmark_of_every_suite_is_in_the_docs() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    for name, suite in SUITES.items():
        assert f"### `{name}`" in text
        assert [one.task for one in suite.benchmarks if f"`{one.task}`" not in text] == []
        assert [what for what, _ in (*suite.missing, *suite.judged) if what not in text] == []


def test_the_walks_of_the_architecture_name_functions_that_exist() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "mergetool").rglob("*.py"))
    text = (ROOT / "docs/architecture.md").read_text().split("## Three walks", 1)[1].split("## Where do I add", 1)[0]
    names = {word.split(".")[-1] for word in re.findall(r"`([A-Za-z_.]+)`", text)}
    missing = [n for n in names if not re.search(rf"\b(def|class) {n}\b|^\s*{n}[:=(]|/{n}\b", code, re.MULTILINE)]
    modules = {path.stem for path in (ROOT / "mergetool").rglob("*") if path.suffix in ("", ".py")}
    missing = [n for n in missing if n not in modules]
    known_words = {"grad", "relative_to", "study", "py", "blend", "combine", "data", "merge", "align", "evaluate"}
    assert sorted(set(missing) - known_words) == []
