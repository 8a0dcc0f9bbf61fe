"""Ready checkpoints as candidates: one, a list, or all that a pattern finds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool.config.sources import looks_like_hub_id
from mergetool.errors import RecipeError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.entry import Entry
from mergetool.study.candidates.grid import label_of
from mergetool.study.candidates.models import StudyModels
from mergetool.study.candidates.weights import CheckpointWeights
from mergetool.study.candidates.workspace import Workspace


class CheckpointCandidate(Candidate):
    """A checkpoint as it is.

    `checkpoint`: a directory, a list of them, or a pattern like runs/x/checkpoint-*: then they are one run's, in order.
    """

    kind = "checkpoint"
    schema = str | list[str]

    @classmethod
    def expand(
        cls,
        study: StudyModels,
        entry: Entry,
        grid: str | list[str],
        trainings: Sequence[Candidate],
        named: Sequence[str] | None = None,
    ) -> list[Candidate]:
        """One candidate a checkpoint; several are one family, in the order of their numbers.

        Raises:
            RecipeError: a pattern finds nothing.
        """
        family = entry.family_name
        if isinstance(grid, str) and not _is_pattern(grid):
            return [cls(entry.name, entry.name, family, entry.name, path=study.source(grid))]
        texts = [grid] if isinstance(grid, str) else grid
        if not texts:
            raise RecipeError(f"candidates: '{entry.name}': an empty list of checkpoints", "name one, or give a pattern")
        sources: list[Path | str] = []
        for text in texts:
            sources += _matching(study, entry.name, text) if _is_pattern(text) else [study.source(text)]
        found: list[Candidate] = []
        for source in sorted(dict.fromkeys(sources), key=_order):
            name = source.name if isinstance(source, Path) else source
            step = re.fullmatch(r"(?:checkpoint|step|global_step)[-_]?(\d+)", name)
            shown: dict[str, Any] = {"step": int(step.group(1))} if step else {}
            label = f"{entry.name} {label_of(shown) if shown else name}"
            found.append(cls(label, label, family, entry.name, shown, path=source))
        return found

    @property
    def remark(self) -> str:
        return "A checkpoint as it is: nothing is merged or trained."

    def _identity_parts(self, workspace: Workspace) -> list[Any]:
        # the same checkpoint is the same weights, whether it is named under `candidates` or under `models`
        return [CheckpointCandidate.kind, workspace.identify(self._source())]

    def checkpoint(self, workspace: Workspace) -> Path | str:
        return self._source()

    def make(self, workspace: Workspace) -> CheckpointWeights:
        return CheckpointWeights(self._source())

    def _source(self) -> Path | str:
        assert self.path is not None
        return self.path


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?[") and not looks_like_hub_id(text)


def _matching(study: StudyModels, name: str, text: str) -> list[Path]:
    import glob

    whole = str(study.directory / Path(text).expanduser())
    found = [Path(one) for one in glob.glob(whole) if (Path(one) / "config.json").is_file()]
    if not found:
        raise RecipeError(f"candidates: '{name}': no checkpoint directory matches {whole}", "check the path; quote the pattern")
    return found


def _order(source: Path | str) -> list[tuple[int, int | str]]:
    """checkpoint-20 comes before checkpoint-100."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", str(source)) if part]
