"""The entries of `reward:` and `tax:` in a study: metrics on data files, or public benchmarks."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from mergetool.evaluate.judge import JudgeSettings
from mergetool.evaluate.metrics import METRICS, kind_of_rows
from mergetool.study.candidates.models import Strict


class Splits(Strict):
    """Two data files that share no row: one to choose on, one to report."""

    validation: str
    test: str


class JudgeEntry(Strict):
    """Whom `win_rate` asks: see `mergetool.evaluate.JudgeSettings`. The key itself stands in no recipe."""

    base_url: str
    model: str
    key_env: str | None = "OPENAI_API_KEY"
    concurrency: int = Field(default=8, ge=1, le=256)
    timeout: float = Field(default=120.0, gt=0)
    retries: int = Field(default=6, ge=0)

    def settings(self) -> JudgeSettings:
        return JudgeSettings(**self.model_dump())

    @model_validator(mode="after")
    def _is_an_address(self) -> JudgeEntry:
        from mergetool.errors import RecipeError

        try:
            self.settings()
        except RecipeError as error:
            raise ValueError(str(error).removeprefix("judge: ")) from None
        return self


class MetricEntry(Strict):
    """Metrics taken on one pair of data files, or public benchmarks, which bring their own data.

    data: two files, or one that is cut into two halves by a hash of what a row's prompt or document says.
    See `mergetool.evaluate.Task` and `mergetool.evaluate.HarnessTask` for what each limit means.
    """

    name: str | None = None
    metrics: list[str] = Field(default_factory=list)
    tasks: list[str] = Field(default_factory=list)
    data: Splits | str | None = None
    limit: int | None = Field(default=None, ge=1)
    beta: float = Field(default=0.1, gt=0)
    max_length: int = Field(default=1024, ge=2)
    max_new_tokens: int | None = Field(default=None, ge=1)
    chat: bool = False
    template: str = "{prompt}"
    reward_model: str | None = None
    judge: JudgeEntry | None = None
    num_fewshot: int | None = Field(default=None, ge=0)
    include: str | list[str] | None = None
    unsafe_code: bool = False
    batch_size: int = Field(default=16, ge=1)

    @field_validator("metrics")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        from mergetool.errors import RecipeError, nearest

        for name in names:
            if name not in METRICS:
                raise ValueError(f"unknown metric '{name}'; {nearest(name, METRICS)}")
        try:
            kind_of_rows(names) if names else None
        except RecipeError as error:
            raise ValueError(str(error).removeprefix("metrics: ")) from None
        return names

    @field_validator("template")
    @classmethod
    def _has_prompt(cls, text: str) -> str:
        if "{prompt}" not in text:
            raise ValueError("the template has no {prompt}; write where the prompt goes")
        return text

    @model_validator(mode="after")
    def _of_one_kind(self) -> MetricEntry:
        if bool(self.metrics) == bool(self.tasks):
            raise ValueError("an entry has either metrics: (of data files) or tasks: (public benchmarks); give one of the two")
        given = self.model_fields_set
        if self.tasks:
            if stray := sorted(given & ONLY_DATA):
                raise ValueError(f"'{stray[0]}' has no meaning beside tasks:, which bring their own data; leave it out")
            return self
        if self.data is None:
            raise ValueError(
                "no data: {validation: FILE, test: FILE}; add it, or one FILE to be cut in two, or public benchmarks as tasks:"
            )
        if stray := sorted(given & ONLY_TASKS):
            raise ValueError(f"'{stray[0]}' has no meaning beside metrics:; leave it out")
        for name in self.metrics:
            if (asked := METRICS[name].asks) and getattr(self, asked) is None:
                raise ValueError(f"{name} needs {asked}:; say which")
        asked_for = {METRICS[name].asks for name in self.metrics}
        for key, name in (("reward_model", "reward_model"), ("judge", "win_rate")):
            if getattr(self, key) is not None and key not in asked_for:
                raise ValueError(f"{key} is given, but no metric asks it; add {name} to metrics")
        return self

    @property
    def label(self) -> str:
        return self.name or (self.metrics or self.tasks)[0]


ONLY_DATA = {"data", "beta", "max_length", "max_new_tokens", "template", "reward_model", "judge"}
ONLY_TASKS = {"num_fewshot", "include", "unsafe_code", "batch_size"}
