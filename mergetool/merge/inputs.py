"""What a merge is made of: how its inputs are known again, when a result or an interrupted run is found.

The identity of a merge is content: the recipe, the program's version, and every byte of its inputs that the result depends
on. Planning reads no weights, so it comes in two parts:

- the *plan* (`plan_of`): recipe, version, headers, and the bytes of configurations, tokenizers and chat templates. Known at
  once. Another plan is another merge.
- the *fingerprint*: the plan, and the content of every weight file. Of a repository of the Hub the commit says it. Of a
  local file it is taken while the merge reads the file anyway, block by block (`content.Seen`), and written into
  mergetool.json at the end. A first merge pays for that one pass of XXH3 over blocks in the processor's cache.

Where an output of the same plan is there already, the weights are hashed, unless the user's cache has the hashes of files
that have not changed (`content`). Where an interrupted run of the same plan is there, its journal has each file's size,
times and inode: where they are the same, so is the content (nobody can set a file's time of change back). Where they are
not, as after a copy, it goes on only if the journal could note the content and the content is the same.

The merge looks again when it is done: an input that has changed meanwhile makes it void.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.checkpoint.content import Seen, known_weights_hash, stamp_of, weights_hash
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.manifest import Manifest
from mergetool.errors import CheckpointError
from mergetool.fingerprints import beside_weights, digest
from mergetool.merge.plan import Plan
from mergetool.version import __version__


def plan_of(plan: Plan) -> str:
    """The part of a merge's identity that is known without reading weights."""
    parts = []
    for source in plan.sources:
        for pinned, directory, headers in source.layout.parts:
            parts.append([[pinned.repo, pinned.commit] if pinned else beside_weights(directory), headers])
    if plan.tokenizer is not None:
        pinned = plan.tokenizer.pinned
        parts.append([pinned.repo, pinned.commit] if pinned else beside_weights(plan.tokenizer.directory))
    if plan.vocabulary is not None:
        parts.append(plan.vocabulary.digest)
    recipe = plan.recipe.to_dict()
    written = [(recipe, plan.recipe.calibration)]  # calibrations by what they hold, wherever they lie
    written += zip(recipe.get("models", []), (model.calibration for model in plan.recipe.models), strict=True)
    for place, calibration in written:
        if calibration is not None:
            place["calibration"] = calibration.identity()
    return digest([__version__, recipe, parts])


def fingerprint(plan: Plan) -> str:
    """A merge's identity; its local weights are read where their hashes are not known."""
    return Inputs(plan).fingerprint()


def is_result_of(plan: Plan, manifest: Manifest) -> bool:
    """Whether a result was made by this very merge from inputs of this very content."""
    made = Inputs(plan)
    return manifest.plan == made.plan and manifest.fingerprint == made.fingerprint()


class Inputs:
    """The inputs of a merge as they are when this is made.

    Attributes:
        plan: see `plan_of`.
    """

    def __init__(self, plan: Plan) -> None:
        self._of = plan
        self.plan = plan_of(plan)
        self._stamps = {file: stamp_of(file) for file in _local_files([source.layout for source in plan.sources])}
        self._seen: Seen | None = None
        self._contents: dict[Path, str] = {}

    def see(self, seen: Seen) -> None:
        """Take hashes of weights from what the merge has read."""
        self._seen = seen

    def noted(self) -> list[dict[str, Any]]:
        """For the journal of an interrupted run: what each local weight file is, and its content if that is known."""
        return [
            {"file": file.name, "stamp": stamp, "content": known_weights_hash(file)} for file, stamp in self._stamps.items()
        ]

    def same(self, noted: Any) -> bool:
        """Whether the files that a journal tells of still have the content that they had."""
        files = self._stamps.items()
        if not isinstance(noted, list) or len(noted) != len(files):
            return False
        if not all(isinstance(one, dict) and {"stamp", "content"} <= one.keys() for one in noted):
            return False
        return all(
            one["stamp"] == stamp or (one["content"] is not None and one["content"] == self._content(file))
            for one, (file, stamp) in zip(noted, files, strict=True)
        )

    def must_be_unchanged(self) -> None:
        """Raises CheckpointError where an input is not what it was."""
        if plan_of(self._of) != self.plan or any(stamp_of(file) != stamp for file, stamp in self._stamps.items()):
            raise CheckpointError("an input changed while it was being merged", "run again when it is complete")

    def fingerprint(self) -> str:
        """The identity of the merge, by the content of its inputs."""
        return digest([self.plan, [self._content(file) for file in self._stamps]])

    def content(self, layout: Layout) -> dict[str, str] | None:
        """Local weight file -> hash of what it holds; None for a model of the Hub."""
        return {file.name: self._content(file) for file in _local_files([layout])} or None

    def _content(self, file: Path) -> str:
        if file not in self._contents:
            seen = self._seen
            self._contents[file] = weights_hash(file) if seen is None else seen.weights_hash(file, self._stamps[file])
        return self._contents[file]


def _local_files(layouts: list[Layout]) -> list[Path]:
    parts = [part for layout in layouts for part in layout.parts]
    return list(dict.fromkeys(directory / name for pinned, directory, headers in parts if pinned is None for name in headers))
