"""Suites: the public benchmarks of a paper by one name, and what of them lm-evaluation-harness does not have."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a suite.

    Attributes:
        task: its name in the harness; `TASK:METRIC` or `TASK:METRIC:FILTER` where the task's first metric is not meant.
        paper: what the paper calls it, and where its set-up and the harness's differ.
        category: as the paper groups them.
        num_fewshot: solved examples before each question.
        runs_code: whether what the model writes is executed.
    """

    task: str
    paper: str
    category: str
    num_fewshot: int = 0
    runs_code: bool = False


@dataclass(frozen=True)
class Suite:
    """A paper's benchmarks.

    Attributes:
        source: the paper and the place in it.
        benchmarks: those that the harness has.
        missing: (benchmark, why) of those that it does not have.
        judged: (benchmark, how to take it) of those that need a judge.
    """

    source: str
    benchmarks: tuple[Benchmark, ...]
    missing: tuple[tuple[str, str], ...] = ()
    judged: tuple[tuple[str, str], ...] = ()

    @property
    def not_run(self) -> list[str]:
        """What of the suite is not run and why, one line each."""
        return [f"{what} ({why})" for what, why in (*self.missing, *self.judged)]


_NOT_THERE = "not in lm-evaluation-harness"
SUITES = MappingProxyType(
    {
        "omo-14": Suite(
            "Lu et al. 2024, Online Merging Optimizers, arXiv 2405.17931, section 5.1 and appendix B",
            (
                Benchmark("gsm8k_cot_zeroshot:exact_match:flexible-extract", "GSM8K: zero-shot, greedy", "mathematics"),
                Benchmark("humaneval:pass@1", "HumanEval: zero-shot, greedy, pass@1", "coding", runs_code=True),
                Benchmark("mbpp", "MBPP: zero-shot, pass@1; the paper samples, this is greedy", "coding", runs_code=True),
                Benchmark("ifeval:inst_level_strict_acc", "IFEval: strict, per instruction, greedy", "instruction following"),
                Benchmark("coqa:f1", "CoQA: F1; the paper counts keywords that are recalled", "reading comprehension"),
                Benchmark("drop:f1", "DROP: F1; the paper counts keywords that are recalled", "reading comprehension"),
                Benchmark("mmlu", "MMLU: zero-shot; the paper lets the model write, this compares likelihoods", "knowledge"),
            ),
            missing=(
                ("Math401", _NOT_THERE),
                ("Math23K", _NOT_THERE),
                ("DS1000", _NOT_THERE),
                ("CodeApex", _NOT_THERE),
                ("NousResearch function calling", _NOT_THERE),
                ("Code-switching", "the paper's 244 queries are not published; take the metric code_switching on your prompts"),
            ),
            judged=(
                ("MT-Bench", "take the metric win_rate on its prompts"),
                ("AlpacaEval 2.0", "take the metric win_rate on its prompts"),
            ),
        ),
        "ama": Suite(
            "Lin et al. 2023, Mitigating the Alignment Tax of RLHF, arXiv 2309.06256",
            (
                Benchmark("arc_easy", "ARC Easy: accuracy", "common sense"),
                Benchmark("arc_challenge", "ARC Challenge: accuracy", "common sense"),
                Benchmark("race", "RACE: accuracy, on its high-school half", "common sense"),
                Benchmark("piqa", "PIQA: accuracy", "common sense"),
                Benchmark("squadv2:f1", "SQuAD: F1, on version 2", "reading comprehension"),
                Benchmark("drop:f1", "DROP: F1", "reading comprehension"),
                Benchmark("wmt14-fr-en:bleu", "WMT 2014 French to English: BLEU", "translation"),
            ),
        ),
    }
)
