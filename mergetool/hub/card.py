"""The model card: metadata that the Hub draws its merge tree from, and what a reader of the model should know.

A card is made with the checkpoint, from what its manifest says; pushing adds what was measured. What a person has
written into it meanwhile is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.manifest import Input, Manifest
from mergetool.checkpoint.place import Place
from mergetool.config.sources import looks_like_hub_id
from mergetool.errors import CheckpointError
from mergetool.hub.commits import Pinned
from mergetool.hub.model_reference import ModelReference

CARD = "README.md"
_BEGIN, _END = "<!-- mergetool: evaluation -->", "<!-- /mergetool: evaluation -->"
LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Evaluation:
    """One number on rows that were not used to choose.

    Attributes:
        data, split: what it was measured on.
        metric, unit: what was measured.
        value, low, high: and its 95 % interval over rows.
        n: rows.
    """

    data: str
    split: str
    metric: str
    unit: str
    value: float
    low: float
    high: float
    n: int


def origin(model: str, place: Layout | Place, role: str | None = None) -> Input:
    """Where an input comes from, for the manifest: its name, its commit on the Hub, its licence."""
    pinned = place.pinned
    metadata = pinned.card if isinstance(pinned, Pinned) else _metadata(place.directory / CARD)
    licence = {key: metadata[key] for key in LICENCE_KEYS if metadata.get(key)}
    return Input(model, role, pinned.commit if pinned is not None else None, **licence)


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a card on this disk; none where there is no card, or one that cannot be read."""
    if not path.is_file():
        return {}
    from huggingface_hub import metadata_load

    try:
        found = metadata_load(path)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def licences(manifest: Manifest) -> tuple[dict[str, str], str]:
    """(what the card says of the result's licence, a warning or "").

    The result has a licence of its own only where all its inputs have the same one.
    """
    inputs = list({one.model: one for one in manifest.inputs}.values())
    known = {
        one.model: {key: str(found) for key in LICENCE_KEYS if (found := getattr(one, key)) is not None}
        for one in inputs
        if one.license
    }
    shown = ", ".join(f"{model}: {one.get('license_name', one['license'])}" for model, one in known.items())
    if not known:
        return {}, ""
    if len({tuple(one.items()) for one in known.values()}) > 1:
        return {}, f"the licences of the inputs differ ({shown}): see what each allows before you publish the result"
    if len(known) < len(inputs):
        unknown = ", ".join(one.model for one in inputs if one.model not in known)
        return {}, f"the licence of {unknown} is not known ({shown}): find it out before you publish the result"
    return next(iter(known.values())), ""


def metadata(manifest: Manifest) -> dict[str, Any]:
    """The card's YAML block."""
    recipe = manifest.recipe
    if manifest.kind == "merge":
        entries = [recipe.get("base_model"), *(m["model"] for m in recipe.get("models", [])), *_in_slices(recipe)]
        datasets, relation, tags = [], "merge", ["merge", "mergetool", recipe["merge_method"]]
        if manifest.adapter is not None:
            entries, relation = [manifest.adapter["base"]], "adapter"
    else:
        entries, relation = [recipe["sft_model"]], "finetune"
        tags = ["mergetool", recipe["algorithm"], manifest.merging["method"]]
        datasets = [str(text).partition(":")[0].partition("@")[0] for text in recipe["data"].values() if _of_the_hub(text)]
    named = [str(entry) for entry in entries if entry]
    public = list(dict.fromkeys(repo for name in named for repo in ModelReference.read(name).repositories))
    block: dict[str, Any] = {"base_model": public, "base_model_relation": relation} if public else {}
    block |= {"datasets": list(dict.fromkeys(datasets))} if datasets else {}
    block |= {
        "library_name": "transformers" if manifest.adapter is None else "peft",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    return {**block, **licences(manifest)[0]}


def _of_the_hub(text: Any) -> bool:
    return isinstance(text, str) and looks_like_hub_id(text) and not Path(text).exists()


def _in_slices(recipe: dict[str, Any]) -> list[str]:
    sources = [source for one in recipe.get("slices") or [] for source in one.get("sources") or []]
    return [source["model"] for source in sources if isinstance(source.get("model"), str)]


def merge_card(manifest: Manifest) -> str:
    """The card of a merge."""
    recipe = manifest.recipe
    lines = [*_block(metadata(manifest)), "", f"# {recipe.get('name') or 'Merged model'}", ""]
    version = manifest.mergetool
    lines += [f"Merged with mergetool {version} by `{recipe['merge_method']}`, seed {manifest.seed}.", ""]
    if manifest.calibrated_on is not None:
        lines += [manifest.calibrated_on, ""]
    if warning := licences(manifest)[1]:
        lines += [f"> **Licence:** {warning}.", ""]
    if code := manifest.trust_remote_code:
        lines += [f"> **Remote code:** loading this model runs {', '.join(code)}; it needs `trust_remote_code=True`.", ""]
    if manifest.inputs:
        lines += ["| input | commit | licence | distance of the result |", "|---|---|---|---|"]
        for one in manifest.inputs:
            distance = manifest.distances.get(one.model)
            licence = one.license_name or one.license or "–"
            shown = "–" if distance is None else f"{distance:.6g}"
            lines.append(f"| {one.model} | {(one.revision or '–')[:12]} | {licence} | {shown} |")
        lines.append("")
    lines += ["## Recipe", "", "```yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).strip(), "```", ""]
    if hashes := manifest.outputs_sha256:
        lines += ["| file | sha256 |", "|---|---|", *(f"| {name} | `{digest}` |" for name, digest in hashes.items()), ""]
    lines.append("Versions: " + ", ".join(f"{name} {value}" for name, value in manifest.versions.items()) + ".")
    return "\n".join(lines) + "\n"


def _block(content: dict[str, Any]) -> list[str]:
    return ["---", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).strip(), "---"]


def completed(text: str, manifest: Manifest, evaluations: Sequence[Evaluation], name: str) -> str:
    """A card as it is pushed: with all metadata that the manifest gives, and with what was measured.

    Args:
        text: the card as it is; what it says already is kept.
        manifest: of the result.
        evaluations: for the model-index and a table; none leave those of an earlier push as they are.
        name: of the model in the model-index.

    Raises:
        CheckpointError: the card's YAML block cannot be read.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    if not text.strip():
        text = merge_card(manifest) if manifest.kind == "merge" else f"# {name}\n"
    try:
        card = ModelCard(text)
        data = card.data
        assert isinstance(data, ModelCardData)  # what a ModelCard holds
        for key, value in metadata(manifest).items():
            if key == "tags":
                tags: list[str] = [*(data.tags or []), *value]
                data.tags = list(dict.fromkeys(tags))
            elif key not in LICENCE_KEYS or not data.get("license"):
                data[key] = data.get(key, value)
        if evaluations:
            data.model_name = name
            data.eval_results = [
                EvalResult(
                    task_type="text-generation", task_name="Text generation", dataset_type=_slug(one.data),
                    dataset_name=one.data, dataset_split=one.split, metric_type=_slug(one.metric),
                    metric_name=f"{one.metric}, {one.unit}", metric_value=one.value,
                )
                for one in evaluations
            ]  # fmt: skip
        content = data.to_dict()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{CARD}: its metadata cannot be read ({error})", "correct the YAML block at its top") from None
    content = {key: content[key] for key in sorted(content, key=_place)}
    body = card.text.strip("\n")
    if evaluations:
        body = re.sub(rf"\n*{re.escape(_BEGIN)}.*?{re.escape(_END)}", "", body, flags=re.DOTALL)
        body += "\n\n" + _table(evaluations)
    return "\n".join(_block(content)) + "\n\n" + body + "\n"


def _place(key: str) -> int:
    order = ("base_model", "base_model_relation", "datasets", "library_name", "pipeline_tag", "tags", *LICENCE_KEYS)
    return order.index(key) if key in order else len(order)


def _table(evaluations: Sequence[Evaluation]) -> str:
    lines = [
        _BEGIN,
        "## Evaluation",
        "",
        "| data | metric | value | 95 % over rows | rows | unit |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {e.data}, {e.split} | {e.metric} | {e.value:.4f} | {e.low:.4f} to {e.high:.4f} | {e.n} | {e.unit} |"
        for e in evaluations
    ]
    return "\n".join([*lines, "", "Measured by `mergetool compare` on rows that were not used to choose.", _END])


def _slug(text: str) -> str:
    return re.sub(r"[^\w./-]+", "_", text).strip("_") or "data"
