"""What some metrics need beside the model: reward models and judges, made when first asked for, then kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mergetool.evaluate.judge import Judge, JudgeSettings
from mergetool.evaluate.reward_model import RewardModel
from mergetool.evaluate.tasks import Task


class Instruments:
    """Made once for all the models that are measured.

    Args:
        device, dtype: of the reward models; see `mergetool.hub.loading.load_model`.
        verdicts: the file in which judges' verdicts are kept; None: in memory alone.
    """

    def __init__(self, device: str | None = None, dtype: str | None = None, verdicts: Path | None = None) -> None:
        self._device, self._dtype, self._file = device, dtype, verdicts
        self._models: dict[Path | str, RewardModel] = {}
        self._judges: dict[JudgeSettings, Judge] = {}

    def make_ready(self, tasks: Iterable[Task]) -> None:
        """Loads and asks what these tasks will need: a wrong key should not show after an hour of training.

        Raises:
            MergetoolError: a reward model is none, or a judge cannot be asked.
        """
        for task in tasks:
            if task.reward_model is not None and task.asks("reward_model"):
                self.reward_model(task.reward_model)
            if task.judge is not None and task.asks("judge"):
                self.judge(task.judge).check()

    def reward_model(self, source: Path | str) -> RewardModel:
        """The reward model of that checkpoint.

        Raises:
            CheckpointError: it is no reward model.
        """
        if source not in self._models:
            self._models[source] = RewardModel(source, self._device, self._dtype)
        return self._models[source]

    def judge(self, settings: JudgeSettings) -> Judge:
        """The judge behind that endpoint.

        Raises:
            RecipeError: its key or the openai package is missing.
        """
        if settings not in self._judges:
            self._judges[settings] = Judge(settings, self._file)
        return self._judges[settings]
