"""The models of the study itself: SFT, base, and RLHF where it is given."""

from __future__ import annotations

from pathlib import Path

from mergetool.study.candidates.checkpoint import CheckpointCandidate
from mergetool.study.candidates.models import StudyModels


class ModelCandidate(CheckpointCandidate):
    """One of `models:`, measured like any candidate."""

    kind = "model"
    is_model = True

    @classmethod
    def of(cls, study: StudyModels) -> list[ModelCandidate]:
        """SFT first: what all rewards are relative to."""

        def one(name: str, source: Path | str) -> ModelCandidate:
            return cls(name, name, name, path=source)

        return [one(name.lower(), source) for name, source in study.sources().items()]
