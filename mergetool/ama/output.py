"""What AMA leaves behind: a merge recipe that any mergekit user can run, with what was learned in its first lines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool import reading
from mergetool.align.check import stored_dtype
from mergetool.align.reward import reward_identity
from mergetool.ama.learn import Learned
from mergetool.ama.recipe import AmaRecipe
from mergetool.errors import OutputError
from mergetool.fingerprints import checkpoint_identity, data_identity, digest
from mergetool.merge.parts import Parts, complement

if TYPE_CHECKING:
    from mergetool.checkpoint.layout import Layout

MADE_BY = "# made by `mergetool ama`"
_FACTS = "# learned: "


def merge_recipe(recipe: AmaRecipe, learned: Learned, parts: Parts, sft: Layout) -> dict[str, Any]:
    """The linear merge that the ratios stand for, in mergekit's own keys."""
    of_sft = parts.setting(learned.shares, learned.alpha)
    settings = ((recipe.sft_model, of_sft), (recipe.rlhf_model, complement(of_sft)))
    return {
        "merge_method": "linear",
        "models": [{"model": recipe.model(name), "parameters": {"weight": setting}} for name, setting in settings],
        "dtype": "float32",  # of the arithmetic
        "out_dtype": recipe.out_dtype or stored_dtype(sft),
    }


def output_paths(recipe: AmaRecipe, out: Path | None) -> dict[float, Path | None]:
    """Where each mean's recipe goes.

    Raises:
        OutputError: not a YAML file's name, or a file that `mergetool ama` did not make.
    """
    if out is None:
        return dict.fromkeys(recipe.alphas)
    if out.suffix not in (".yaml", ".yml"):
        raise OutputError(f"{out}: a merge recipe is YAML", f"name it {out.name}.yaml")
    single = not isinstance(recipe.alpha, list)
    paths = {alpha: out if single else out.with_name(f"{out.stem}-alpha{alpha:g}{out.suffix}") for alpha in recipe.alphas}
    for path in paths.values():
        if path.is_dir() or (path.exists() and MADE_BY not in reading.text(path, errors="replace")):
            raise OutputError(f"{path}: is there, and not made by `mergetool ama`", "give another name")
    return dict(paths)


def _identity(recipe: AmaRecipe, alpha: float) -> str:
    """Changes where the ratios would: the recipe, the weights of both models, and the rows."""
    parts: list[Any] = [recipe.model_dump(mode="json", exclude={"alpha"}), alpha]
    for name in (recipe.sft_model, recipe.rlhf_model):
        parts += [checkpoint_identity(recipe.source(part)) for part in name.split("+")]
    parts += [data_identity(recipe.source(text)) for text in (recipe.data.train, recipe.data.eval) if text]
    if recipe.reward:
        parts.append(reward_identity(recipe.reward, recipe.directory))
    return digest(parts)


def write(path: Path, recipe: AmaRecipe, learned: Learned, whole: dict[str, Any]) -> None:
    """The merge recipe, headed by what was learned; it appears whole or not at all."""
    import yaml

    facts = {
        "identity": _identity(recipe, learned.alpha),
        "alpha": learned.alpha,
        "shares": list(learned.shares),
        "uniform_nll": learned.uniform_nll,
        "nll": learned.nll,
        "measured": learned.measured,
    }
    shares = " ".join(f"{share:.4f}" for share in learned.shares)
    head = [
        f"# mergetool merge {path.name} OUT",
        f"{MADE_BY}: the share of SFT in each block, its mean {learned.alpha:g}: {shares}",
        f"# {learned.nll:.4f} nats/token on the {learned.measured} rows, {learned.uniform_nll:.4f} with the mean everywhere",
        _FACTS + json.dumps(facts),
    ]
    body = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text("\n".join(head) + "\n" + body, encoding="utf-8")
    os.replace(part, path)


def kept(recipe: AmaRecipe, path: Path, alpha: float) -> Learned | None:
    """What an earlier run of the same recipe learned, if its file is whole and unchanged in its facts."""
    if not path.exists():
        return None
    line = next((line for line in reading.text(path).splitlines() if line.startswith(_FACTS)), None)
    if line is None:
        return None
    try:
        facts = json.loads(line.removeprefix(_FACTS))
        if facts.pop("identity") != _identity(recipe, alpha):
            return None
        return Learned(**{**facts, "shares": tuple(facts["shares"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # somebody has edited the line: it is learned again
