"""Where a study's candidates are made: its models, what is in them, and a directory for each candidate.

Beside the directory NAME lies NAME.yaml, the recipe of what is in it. Its first line names the command that makes it
and ends with the identity of the candidate, so that a directory is never taken for another candidate's.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mergetool import hub
from mergetool.errors import OutputError
from mergetool.fingerprints import checkpoint_identity, legacy_checkpoint_identity
from mergetool.study.candidates.models import StudyModels


def slug(name: str) -> str:
    """A candidate's name as a directory name: `ondare K=5 seed=0` is `ondare-K5-seed0`."""
    spelled = name.replace("Σ", "sum").replace("α", "alpha").replace("β", "beta").replace("=", "")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", spelled).strip("-.") or "candidate"


class Workspace:
    """What candidates need to be told apart, made and found again.

    Args:
        study: its models.
        out: its directory; candidates lie in OUT/candidates.
        fresh: train again what an earlier run has trained.
        device: of models that are trained by `ama`.
        identify: checkpoint -> hash of what is in it.

    Attributes:
        models: SFT, BASE and RLHF -> checkpoint; only those that the study is given.
        identities: the same names -> hash of what is in the checkpoint.

    Raises:
        MergetoolError: a model of the study is missing.
    """

    def __init__(
        self,
        study: StudyModels,
        out: Path,
        fresh: bool = False,
        device: str | None = None,
        identify: Callable[[Path | str], str] = checkpoint_identity,
    ) -> None:
        hub.hold(study.commits)
        self.study, self.out, self.fresh, self.device, self.identify = study, out, fresh, device, identify
        self.models = study.sources()
        self.identities = {name: identify(source) for name, source in self.models.items()}

    @cached_property
    def legacy(self) -> Workspace:
        """The same, with the identities that checkpoints had before they were of all their content."""
        return Workspace(self.study, self.out, self.fresh, self.device, legacy_checkpoint_identity)

    def directory(self, name: str) -> Path:
        """Where the checkpoint of a candidate that this study writes lies."""
        return self.out / "candidates" / slug(name)

    def holds(self, name: str, identities: Sequence[str]) -> bool:
        """Whether the candidate's directory holds a checkpoint of one of these identities."""
        return self._is_noted(name, identities) and (self.directory(name) / "config.json").exists()

    def claim(self, name: str, identities: Sequence[str], command: str, recipe: dict[str, Any]) -> tuple[Path, bool]:
        """The candidate's directory, cleared of what is not this candidate, and its recipe beside it.

        Args:
            name: of the candidate.
            identities: of the candidate, as `Candidate.identities` gives them.
            command: of mergetool, that makes the same from the recipe.

        Returns:
            The directory, and whether the note beside it was this candidate's before: then work on it may resume.
        """
        import yaml

        directory, note = self.directory(name), self._note(name)
        same = self._is_noted(name, identities)
        directory.parent.mkdir(exist_ok=True)
        if note.exists() and (directory / "mergetool.json").exists():
            shutil.rmtree(directory)  # ours, by the note: another recipe had this name, or it has to be made again
        head = f"# mergetool {command} {note.name} {directory.name}   {_made(identities[0])}\n"
        note.write_text(head + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return directory, same

    def _is_noted(self, name: str, identities: Sequence[str]) -> bool:
        """Whether the note beside the candidate's directory tells one of these identities."""
        return any(_says(self._note(name), _made(identity)) for identity in identities)

    def _note(self, name: str) -> Path:
        directory = self.directory(name)
        return directory.with_name(directory.name + ".yaml")


def _made(identity: str) -> str:
    """How a note's first line ends."""
    return f"(made by `mergetool compare`, {identity})"


def _says(note: Path, made: str) -> bool:
    """Whether a note's first line ends in this.

    Raises:
        OutputError: it cannot be read just now: what lies beside it may be this candidate's, and must not be removed.
    """
    try:
        with note.open(encoding="utf-8") as file:
            return file.readline().rstrip("\n").endswith(made)
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    except OSError as error:
        raise OutputError(f"{note}: cannot be read ({error.strerror or error})", "check the disk and run again") from error
