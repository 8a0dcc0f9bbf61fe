"""The table of alignment algorithms: a row says which of TRL's trainers stands behind a name, what it reads, what it needs
and what it logs.

Everything that `align` does with an algorithm it reads from its row. Nothing here imports TRL or torch: a recipe is read
without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mergetool.align.algorithm_row import Algorithm, Logged, Sampling
from mergetool.align.best_of_n import best_of_n
from mergetool.align.rows import COMPLETIONS, LABELLED, PAIRS, PROMPTS

PAIR_REWARDS = (
    Logged("rewards/accuracies", at_end=True),
    Logged("rewards/margins", title="reward margin", word="margin", at_end=True),
)
ANSWER_REWARD = (Logged("reward", title="reward of the sampled answers", word="reward"),)
SCORES = (
    Logged("accuracy", title="accuracy on pairs", word="accuracy", at_end=True),
    Logged("margin", title="margin of the scores", word="margin", at_end=True),
)
_COLLATED = {"remove_unused_columns": False}  # as their collator sets it, with a warning where it was not

ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        row.name: row
        for row in (
            Algorithm(
                "dpo",
                "pairs: a classification of the chosen against the rejected side",
                "Rafailov et al. 2023, arXiv 2305.18290",
                "trl:DPOTrainer",
                "trl:DPOConfig",
                PAIRS,
                reference="scored once",
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "ipo",
                "pairs: a margin of a fixed size between both sides",
                "Azar et al. 2023, arXiv 2310.12036",
                "trl:DPOTrainer",
                "trl:DPOConfig",
                PAIRS,
                reference="scored once",
                sets={"loss_type": ["ipo"]},
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "kto",
                "answers with a thumb up or down",
                "Ethayarajh et al. 2024, arXiv 2402.01306",
                "trl:KTOTrainer",
                "trl:KTOConfig",
                LABELLED,
                reference="scored once",
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "sft",
                "completions: the likelihood of what is written",
                "",
                "trl:SFTTrainer",
                "trl:SFTConfig",
                COMPLETIONS,
                beta=None,
            ),
            Algorithm(
                "grpo",
                "sampled answers, each against the mean of its group",
                "Shao et al. 2024, arXiv 2402.03300",
                "trl:GRPOTrainer",
                "trl:GRPOConfig",
                PROMPTS,
                beta="if written",
                zero_beta=True,
                reference="beside the policy",
                rewarded=True,
                sampling=Sampling(),
                logged=ANSWER_REWARD,
            ),
            Algorithm(
                "rloo",
                "sampled answers, each against the mean of the others to its prompt, by REINFORCE",
                "Ahmadian et al. 2024, arXiv 2402.14740",
                "trl:RLOOTrainer",
                "trl:RLOOConfig",
                PROMPTS,
                beta="if written",
                zero_beta=True,
                reference="beside the policy",
                rewarded=True,
                sampling=Sampling(),
                logged=ANSWER_REWARD,
            ),
            Algorithm(
                "raft",
                "sampled answers: the likelihood of the best of each group",
                "Dong et al. 2023, arXiv 2304.06767",
                "trl:GRPOTrainer",
                "trl:GRPOConfig",
                PROMPTS,
                beta=None,
                # one update on the answers of each sampling, so that the advantage alone weighs an answer's own gradient
                sets={"loss_type": "grpo", "num_iterations": 1},
                rewarded=True,
                sampling=Sampling(),
                on_policy=True,
                adapt=best_of_n,
                logged=ANSWER_REWARD,
            ),
            Algorithm(
                "online_dpo",
                "two sampled answers to each prompt, a pair by their reward",
                "Guo et al. 2024, arXiv 2402.04792",
                "trl.experimental.online_dpo:OnlineDPOTrainer",
                "trl.experimental.online_dpo:OnlineDPOConfig",
                PROMPTS,
                reference="beside the policy",
                rewarded=True,
                sampling=Sampling("max_new_tokens", in_wholes=False, special_tokens=False),
                evaluates=False,
                logged=(Logged("objective/scores", title="reward of the sampled answers", word="reward"), *PAIR_REWARDS),
            ),
            Algorithm(
                "distillation",
                "sampled answers: the SFT model's distribution of each next token; the policy starts at `policy`",
                "Agarwal et al. 2023, arXiv 2306.13649",
                "trl:DistillationTrainer",
                "trl:DistillationConfig",
                PROMPTS,
                beta="if written",
                zero_beta=True,
                taught=True,
                sampling=Sampling(),
            ),
            Algorithm(
                "orpo",
                "pairs: the likelihood of the chosen side, and the odds against the rejected one",
                "Hong et al. 2024, arXiv 2403.07691",
                "trl.experimental.orpo:ORPOTrainer",
                "trl.experimental.orpo:ORPOConfig",
                PAIRS,
                defaults=_COLLATED,
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "cpo",
                "pairs: a classification without a reference, and the likelihood of the chosen side",
                "Xu et al. 2024, arXiv 2401.08417",
                "trl.experimental.cpo:CPOTrainer",
                "trl.experimental.cpo:CPOConfig",
                PAIRS,
                defaults=_COLLATED,
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "simpo",
                "pairs: a margin between the mean log-likelihoods of both sides, without a reference",
                "Meng et al. 2024, arXiv 2405.14734",
                "trl.experimental.cpo:CPOTrainer",
                "trl.experimental.cpo:CPOConfig",
                PAIRS,
                beta="if written",
                sets={"loss_type": "simpo", "cpo_alpha": 0.0},
                defaults={"beta": 2.0, "simpo_gamma": 1.0, **_COLLATED},  # the paper's for Llama-3-Base
                logged=PAIR_REWARDS,
            ),
            Algorithm(
                "reward",
                "pairs: a reward model, the SFT model with a head of one score in place of its vocabulary's",
                "Ouyang et al. 2022, arXiv 2203.02155, equation 1",
                "trl:RewardTrainer",
                "trl:RewardConfig",
                PAIRS,
                beta=None,
                scores=True,
                logged=SCORES,
            ),
        )
    }
)


def takes_reward(name: str) -> bool:
    """Whether a recipe of that algorithm has a `reward`; an unknown name is for the recipe to refuse."""
    return name in ALGORITHMS and ALGORITHMS[name].rewarded
