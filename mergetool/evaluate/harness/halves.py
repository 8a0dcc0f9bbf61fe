"""Documents of a public benchmark in two halves, one to choose on and one to report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any


def halves(documents: Sequence[Any]) -> dict[str, list[int]]:
    """Indices of documents in two halves, `validation` and `test`, by a hash of what they say.

    Equal documents share a half, in one task and across tasks, so no document is in both. The halves are equal in
    expectation; the order within one is that of the hashes, so that a limit takes documents at random, the same ones
    every time.
    """
    marks = [sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest() for document in documents]
    order = sorted(range(len(marks)), key=lambda at: (marks[at], at))
    odd = {at for at in order if int(marks[at][-1], 16) % 2}
    return {"validation": [at for at in order if at in odd], "test": [at for at in order if at not in odd]}
