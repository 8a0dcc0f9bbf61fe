"""The AMA recipe: two models, the mean ratio, the blocks, and the answers whose likelihood decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from mergetool.config.settings import with_settings
from mergetool.config.sources import resolve_source
from mergetool.config.strict_yaml import load_yaml, validate
from mergetool.merge.parts import ROLES, Place

Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(_Strict):
    """The answers of high reward.

    Attributes:
        train: preference pairs, whose chosen sides are taken, or rows of prompt and completion; a file, `lab:NAME` or
            a Hub id. With `best_of`, prompts (or either of these, for their prompts).
        eval: rows in the same form that are only measured, never learned from.
        limit, eval_limit: use no more than this many rows.
        max_length: tokens of prompt and answer together; what is longer is cut at the end.
        best_of: sample this many answers to each prompt from the RLHF model and learn from the best one, as the paper
            does; needs `reward`.
        max_new_tokens, temperature: of the sampled answers.
    """

    train: str = Field(min_length=1)
    eval: str | None = None
    limit: Annotated[int, Field(gt=0)] | None = None
    eval_limit: Annotated[int, Field(gt=0)] | None = None
    max_length: Annotated[int, Field(gt=1)] = 1024
    best_of: Annotated[int, Field(gt=1)] | None = None
    max_new_tokens: Annotated[int, Field(gt=0)] = 128
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Training(_Strict):
    """How the ratios are learned: Adam on one number a block.

    Attributes:
        learning_rate: of w, whose sigmoid is the ratio before it is scaled to the mean.
        steps: Adam steps, over and over the rows in a seeded order.
        batch_size: rows a step.
        seed: of the order of the rows, and of the sampled answers.
        bf16: forward and backward under bf16 autocast; the weights stay in `dtype`.
        gradient_checkpointing: compute activations twice and keep them once.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    steps: Annotated[int, Field(gt=0)] = 100
    batch_size: Annotated[int, Field(gt=0)] = 8
    seed: Annotated[int, Field(ge=0)] = 0
    bf16: bool = False
    gradient_checkpointing: bool = False


class AmaRecipe(_Strict):
    """One or several runs of AMA.

    Attributes:
        sft_model, rlhf_model: theta_s and theta_p, each a directory, `lab:NAME`, a Hub id, or MODEL+ADAPTER.
        alpha: the mean share of SFT over the blocks; a list gives one recipe for each.
        blocks: parts of consecutive layers, or `layers` for one a layer.
        embeddings, final_norm, lm_head: `block` (the first block; the last; the last), `average` (the mean alpha), `sft`,
            `rlhf`. The released code keeps embeddings and norm at `sft` and the head at `average`.
        epsilon: keeps the ratios apart from 0 and from each other; see `ratios`.
        penalty, penalty_shape: lambda and c_k of lambda · sum c_k · |alpha_k − alpha|.
        data, training: see Data and Training.
        reward: with `data.best_of`: `FILE.py:FUNCTION` or a sequence-classification checkpoint.
        dtype: of the live model; default: float32 on a CPU, the checkpoint's own on a GPU.
        out_dtype: of the merged weights, written into the recipe; default: the SFT checkpoint's own.
    """

    sft_model: str = Field(min_length=1)
    rlhf_model: str = Field(min_length=1)
    alpha: Share | Annotated[list[Share], Field(min_length=1)]
    blocks: Annotated[int, Field(ge=1)] | Literal["layers"] = 3
    embeddings: Place = "block"
    final_norm: Place = "block"
    lm_head: Place = "block"
    epsilon: Annotated[float, Field(gt=0)] = 0.2
    penalty: Annotated[float, Field(ge=0)] = 1e-4
    penalty_shape: Literal["uniform", "middle"] = "uniform"
    data: Data
    reward: str | None = None
    training: Training = Training()
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    out_dtype: Literal["float32", "bfloat16", "float16"] | None = None

    _directory: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _fits_together(self) -> AmaRecipe:
        if len(set(self.alphas)) < len(self.alphas):
            raise ValueError("alpha names a value twice; remove one")
        if bool(self.data.best_of) != bool(self.reward):
            given, missing = ("reward", "data.best_of") if self.reward else ("data.best_of", "reward")
            raise ValueError(f"{given} is given and {missing} is not; the best of several answers needs both")
        return self

    @property
    def alphas(self) -> list[float]:
        """The means, in the recipe's order."""
        return self.alpha if isinstance(self.alpha, list) else [self.alpha]

    @property
    def places(self) -> dict[str, Place]:
        """Where the tensors outside of the layers go."""
        return {role: getattr(self, role) for role in ROLES}

    @property
    def directory(self) -> Path:
        """Where relative paths start from."""
        return self._directory

    def model(self, name: str) -> str:
        """A model reference with each local part made absolute; `MODEL+ADAPTER` has two parts."""
        found = (resolve_source(part, self._directory) for part in name.split("+"))
        return "+".join(str(part.absolute()) if isinstance(part, Path) else part for part in found)

    def source(self, text: str) -> Path | str:
        """A data file as a path, or as a Hub id."""
        return resolve_source(text, self._directory)


def ama_recipe(mapping: Mapping[str, Any], directory: str | Path = ".", source: str | Path = "recipe") -> AmaRecipe:
    """A recipe from plain values; `directory` is where relative paths start.

    Raises:
        RecipeError: one line with the place and the nearest known key.
    """
    recipe = validate(AmaRecipe, dict(mapping), source)
    recipe._directory = Path(directory).absolute()
    return recipe


def load_ama_recipe(path: str | Path, settings: Sequence[str] = ()) -> AmaRecipe:
    """Reads a recipe; `settings` are values set anew, see `config.settings`.

    Raises:
        RecipeError: as `ama_recipe`, or the file is missing or no YAML.
    """
    return ama_recipe(with_settings(load_yaml(path), settings), Path(path).parent, path)
