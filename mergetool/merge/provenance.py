"""What a merge says of itself: mergetool.json and the model card."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from mergetool.checkpoint.adapter import ADAPTER_CONFIG
from mergetool.checkpoint.header import DTYPES
from mergetool.checkpoint.manifest import Input, Manifest
from mergetool.checkpoint.model_files import left_behind, remote_code, write_beside, write_config, write_tokenizer
from mergetool.checkpoint.output import check_output, files_beside, weight_hashes
from mergetool.checkpoint.place import Directory
from mergetool.checkpoint.tying import untie_if_different
from mergetool.checkpoint.working_directory import WorkingDirectory
from mergetool.errors import OutputError
from mergetool.files import sync_tree
from mergetool.hub.card import CARD, licences, merge_card, origin
from mergetool.hub.fetch import Fetching, fetch_beside, fetch_weights
from mergetool.merge import mergekit
from mergetool.merge.inputs import Inputs
from mergetool.merge.obtained import Obtained
from mergetool.merge.plan import Plan
from mergetool.merge.planner import references
from mergetool.merge.recipe import MergeRecipe
from mergetool.merge.vocabulary import write_vocabulary
from mergetool.version import __version__

_HARDLY = 0.1  # of the way from the base to the models' mean: below it a merge says that it changed little


def finish(
    plan: Plan,
    directory: Path,
    hashes: dict[str, str],
    reports: dict[str, dict[str, Any]],
    inputs: Inputs,
    obtained: Obtained | None = None,
) -> Manifest:
    """Write everything beside the weights into the directory under construction.

    Args:
        plan: what was merged.
        directory: under construction.
        hashes: of the weight files.
        reports: of each tensor.
        inputs: of the merge.
        obtained: the calibrations that were read.

    Returns:
        The manifest.
    """
    largest = max((t for t in plan.tensors if t.floating), key=lambda t: t.numel, default=None)
    dtype = DTYPES[largest.dtype_name][0] if largest else "float32"
    write_config(plan.sources[plan.sidecar].layout.directory, directory, dtype, plan.config)
    untie_if_different(directory)
    assert plan.tokenizer is not None  # a native plan has one
    write_tokenizer(plan.tokenizer.directory, directory, plan.chat_template)
    if plan.vocabulary is not None:
        write_vocabulary(plan.vocabulary, directory)
    base = plan.sources[plan.sidecar].layout.place
    assert base is not None  # a plan's layouts are read from somewhere
    files = write_beside(base, directory)
    code = list(dict.fromkeys([*remote_code(base), *remote_code(plan.tokenizer)]))
    distances = _distances(plan, reports)
    warnings = [
        f"the result equals the input {name}: the merge changed nothing"
        for name, distance in distances.items()
        if distance == 0.0 and name in _whole(plan)
    ]
    obtained = obtained or Obtained()
    warnings += [*dict.fromkeys([*plan.notes, *obtained.notes]), *_near_base(plan, reports), *left_behind(files)]
    if code:
        warnings.append(
            f"loading the result runs code that was carried over from the models and not read here ({', '.join(code)}): "
            "it needs trust_remote_code=True"
        )
    manifest = Manifest(
        mergetool=__version__,
        kind="merge",
        engine="native",
        plan=inputs.plan,
        fingerprint=inputs.fingerprint(),
        recipe=plan.recipe.to_dict(),
        calibration=None if obtained.of_base is None else dict(obtained.of_base.facts),
        calibrations=obtained.facts,
        seed=plan.recipe.seed,
        versions=versions(),
        inputs=_inputs(plan, inputs),
        outputs_sha256=hashes,
        dtype=dtype,
        distances=distances,
        kept=_kept(plan, reports),
        trust_remote_code=code,
        warnings=warnings,
    )
    return _write(directory, manifest)


def finish_adapter(
    plan: Plan, directory: Path, hashes: dict[str, str], inputs: Inputs, dtype: str, facts: dict[str, Any]
) -> Manifest:
    """Write the manifest and the card of an adapter that is otherwise there.

    Args:
        plan, directory, hashes, inputs: as `finish`.
        dtype: torch's name of its tensors' type.
        facts: facts about it.
    """
    manifest = Manifest(
        mergetool=__version__,
        kind="merge",
        engine="native",
        plan=inputs.plan,
        fingerprint=inputs.fingerprint(),
        recipe=plan.recipe.to_dict(),
        seed=plan.recipe.seed,
        versions=versions(),
        inputs=_inputs(plan, inputs),
        outputs_sha256=hashes,
        dtype=dtype,
        warnings=list(plan.notes),
        adapter=facts,
    )
    return _write(directory, manifest)


def _inputs(plan: Plan, inputs: Inputs) -> list[Input]:
    return [
        replace(
            origin(s.name, s.layout),
            headers_sha256={f.name: d for f, (_, d) in s.layout.files.items()},
            content=inputs.content(s.layout),
        )
        for s in plan.sources
    ]


def through_mergekit(
    plan: Plan,
    out: Path,
    *,
    shard_bytes: int,
    device: str = "cpu",
    fetching: Fetching | None = None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Let mergekit make the checkpoint, under the same rule: its name appears when it is complete.

    What the recipe names on the Hub is fetched here, at the commits that were checked, and given to it as directories.
    It cannot be interrupted and gone on with, so nothing of it stays behind.
    """
    check_output(out)
    places = _fetched(plan, fetching)
    with WorkingDirectory(out) as work:
        if work.holds_work() and not fresh:
            raise OutputError(f"{work.directory}: an interrupted run of another kind", "run again with --fresh to discard it")
        try:
            work.empty()
            recipe = MergeRecipe.model_validate(_placed(plan.recipe.to_dict(), places)) if places else plan.recipe
            mergekit.run(recipe, work.directory, device=device, shard_bytes=shard_bytes, seed=plan.recipe.seed)
            manifest = Manifest(
                mergetool=__version__,
                kind="merge",
                engine="mergekit",
                reason=plan.reason,
                recipe=plan.recipe.to_dict(),
                seed=plan.recipe.seed,
                versions={**versions(), "mergekit": metadata.version("mergekit")},
                inputs=_mergekit_inputs(plan),
                outputs_sha256=weight_hashes(work.directory),
            )
            manifest = _write(work.directory, manifest)
            try:
                sync_tree(work.directory)
                work.publish(work.directory)
            except OSError as error:
                raise work.failure(error) from error
        except BaseException:
            work.remove()
            raise
    return manifest.to_json()


def _mergekit_inputs(plan: Plan) -> list[Input]:
    """Every model that the recipe names: of the Hub as it was planned, and what lies on this disk."""
    remote = {s.name: s.layout for s in plan.sources}
    local = {name: Directory(name) for name in references(plan.recipe.to_dict()) if Path(name).is_dir()}
    return [origin(name, place) for name, place in {**local, **remote}.items()]


def _fetched(plan: Plan, fetching: Fetching | None) -> dict[str, str]:
    """A model of the Hub as the recipe names it -> the directories that it was fetched into."""
    fetch_weights([s.layout for s in plan.sources], fetching)
    places = {}
    for source in plan.sources:
        parts = [source.layout.place, *([source.layout.adapter.place] if source.layout.adapter else [])]
        for part in parts:
            fetch_beside(part)
        places[source.name] = "+".join(str(part.directory) for part in parts)
    return places


def _placed(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _placed(item, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, places) for item in value]
    return places.get(value, value) if isinstance(value, str) else value


def versions() -> dict[str, str]:
    """What the bytes of a result may depend on."""
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in ("torch", "numpy", "safetensors")}}


def _whole(plan: Plan) -> set[str]:
    """The inputs that the whole of the result can be compared with: those of slices and modules are parts."""
    floating = [tensor for tensor in plan.tensors if tensor.floating]
    parts = bool(plan.recipe.slices)
    return {one.name for i, one in enumerate(plan.sources) if not parts and all(i in tensor.sources for tensor in floating)}


def _distances(plan: Plan, reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Euclidean distance of the result to each input, over the whole model."""
    totals: dict[int, list[float]] = {}
    for report in reports.values():
        for source, value in report["distance2"].items():
            totals.setdefault(int(source), []).append(value)
    return {plan.sources[i].name: math.sqrt(math.fsum(values)) for i, values in sorted(totals.items())}


def _kept(plan: Plan, reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    """For each sparsified model of the recipe (by its place there), the fraction of its delta that was kept."""
    kept: dict[str, int] = {}
    numel: dict[str, int] = {}
    for report in reports.values():
        for role, count in report["kept"].items():
            kept[role] = kept.get(role, 0) + count
            numel[role] = numel.get(role, 0) + report["numel"]
    return {plan.entry(role): kept[role] / numel[role] for role in sorted(kept)}


def _near_base(plan: Plan, reports: dict[str, dict[str, Any]]) -> list[str]:
    """A line where the method itself found how far to go from the base, and hardly went."""
    found = [(report["share"], report["numel"]) for report in reports.values() if "share" in report]
    if not found:
        return []
    share = math.fsum(share * numel for share, numel in found) / sum(numel for _, numel in found)
    if share >= _HARDLY:
        return []
    return [
        f"the result is nearly the base: {plan.recipe.merge_method} took {share:.1%} of the models' mean, for their deltas are "
        "near orthogonal; task_arithmetic or ties adds such deltas"
    ]


def _write(directory: Path, manifest: Manifest) -> Manifest:
    warning = licences(manifest)[1]
    files = files_beside(directory) if manifest.adapter is None else [ADAPTER_CONFIG]
    manifest = replace(manifest, files=files, warnings=[*manifest.warnings, *([warning] if warning else [])])
    manifest.write(directory)
    (directory / CARD).write_text(merge_card(manifest), encoding="utf-8")
    return manifest
