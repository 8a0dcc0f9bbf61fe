"""Where do I add a kind of candidate? A class in a file of its own, and a row: nothing else is touched.

Done here in a copy of the package, with ExPO (Zheng et al. 2024, arXiv 2404.16792): SFT + (1 + s) · (RLHF − SFT).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import mergetool
from tests.study import tiny

CLASS = '''
"""Extrapolation beyond RLHF: the step from SFT, made longer."""

from __future__ import annotations

from collections.abc import Sequence

from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.grid import grid_points, label_of
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.models import Strict, StudyModels
from mergetool.study.candidates.ranges import Grid
from mergetool.study.candidates.rlhf import rlhf_runs


class ExpoGrid(Strict):
    """strength: how far beyond RLHF, as a share of the step from SFT to it. A list is a grid."""

    strength: Grid


class ExpoCandidate(MergeCandidate):
    """ExPO: SFT + (1 + strength) * (RLHF - SFT), Zheng et al. 2024, arXiv 2404.16792."""

    kind = "expo"
    schema = ExpoGrid
    searchable = False

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: ExpoGrid,
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        points, _ = grid_points({"strength": grid.strength})
        found: list[Candidate] = []
        for point in points:
            for run in rlhf_runs(study, trainings):  # [None] where RLHF is a given checkpoint
                group = f"{entry.name} {label_of(point)}"
                rlhf = {"model": "RLHF", "parameters": {"weight": 1 + point["strength"]}}
                recipe = {"merge_method": "task_arithmetic", "base_model": "SFT", "models": [rlhf]}
                name = f"{group} seed={run.seed}" if run else group
                seed = run.seed if run else None
                found.append(cls(name, group, entry.family_name, entry.name, point, seed, recipe, run))
        return found
'''
IMPORT, ROW = "from mergetool.study.candidates.expo import ExpoCandidate\n", '    "expo": ExpoCandidate,\n'


@pytest.mark.slow
def test_a_class_and_a_row_are_read_checked_measured_saved_and_reported(folder, tmp_path):
    package = tmp_path / "copy/mergetool"
    shutil.copytree(Path(mergetool.__file__).parent, package, ignore=shutil.ignore_patterns("lab", "__pycache__"))
    room = package / "study/candidates"
    (room / "expo.py").write_text(CLASS.lstrip())
    table = (room / "kinds.py").read_text()
    for before, line in (("from mergetool.study.candidates.merge import", IMPORT), ('    "checkpoint": ', ROW)):
        assert table.count(before) == 1
        table = table.replace(before, line + before)
    (room / "kinds.py").write_text(table)

    entry = {"name": "expo", "expo": {"strength": [0, 0.5]}}
    recipe = folder / "expo.yaml"
    recipe.write_text(yaml.safe_dump(tiny.mapping(candidates=[entry])))

    words = [sys.executable, "-m", "mergetool", "compare", str(recipe), str(tmp_path / "out"), "--save", "all", "--json"]
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(words, cwd=package.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    groups = {one["name"]: one for one in json.loads(done.stdout)["groups"]}
    assert list(groups) == ["sft", "base", "rlhf", "expo strength=0", "expo strength=0.5"]
    nll = {name: one["scores"]["test"]["skills.nll"]["mean"] for name, one in groups.items()}
    assert nll["expo strength=0"] == pytest.approx(nll["rlhf"], rel=1e-6), "no step beyond RLHF is RLHF"
    assert abs(nll["expo strength=0.5"] - nll["rlhf"]) > 1e-3
    for name in ("expo-strength0", "expo-strength0.5"):
        assert (tmp_path / "out/candidates" / name / "model.safetensors").exists()
        assert (tmp_path / f"out/candidates/{name}.yaml").read_text().startswith(f"# mergetool merge {name}.yaml {name} ")
    assert "expo strength=0.5" in (tmp_path / "out/report.html").read_text()
