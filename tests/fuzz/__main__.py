"""Fuzz the command line: ``python -m tests.fuzz --cases 20000 --seed 7``. `make fuzz` calls it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz import batch, cases, corpus, forked

VERDICTS = ("clean", "traceback", "slow", "large", "silent", "left")


def main() -> int:
    """0 where every case was clean."""
    kinds = [kind.__name__ for kind in cases.KINDS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).strftime("%Y%m%d")), help="default: today")
    parser.add_argument("--case", type=int, action="append", help="run this one alone; may be repeated")
    parser.add_argument("--kind", choices=kinds, action="append", help="damage this alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="leave out what trains, measures or draws")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="where the files of cases that fell are kept")
    asked = parser.parse_args()
    began = time.monotonic()
    numbers = asked.case or list(range(asked.cases))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        place = asked.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        chosen = asked.kind or [kind for kind in kinds if not (asked.quick and kind in cases.SLOW)]
        verdicts = fuzz(asked.seed, numbers, Path(folder), place, asked.processes, chosen)
    tell(verdicts, asked.seed, time.monotonic() - began, asked.processes)
    return 0 if all(one.verdict == "clean" for one in verdicts) else 1


def fuzz(
    seed: int, numbers: list[int], folder: Path, place: Path, processes: int, only: Collection[str]
) -> list[batch.Verdict]:
    """Run cases in several processes.

    Args:
        seed, numbers, only: as of `batch.run`.
        folder: an empty directory, for the corpus.
        place: where the cases lie while they run; those that fall stay.
        processes: how many at a time.
    """
    slow = any(kind in cases.SLOW for kind in only)
    forked.warm(slow)
    at = folder / "corpus"
    at.mkdir()
    corpus.build(at, slow)
    lines = forked.shared_out(
        folder, processes, lambda one: batch.run(seed, numbers[one::processes], at, place, only), "the fuzzer"
    )
    found = [batch.Verdict(**line) for line in lines]
    return sorted(found, key=lambda one: one.number)


def tell(verdicts: list[batch.Verdict], seed: int, seconds: float, processes: int) -> None:
    """The table, and what fell."""
    for one in verdicts:
        if one.verdict != "clean":
            print(
                f"\n--- case {one.number} ({one.kind}: {one.about}): {one.verdict}\n    {' '.join(one.words)[:300]}\n{one.told}"
            )
    print(f"\n{'':12}" + "".join(f"{name:>11}" for name in VERDICTS))
    table = batch.summed(verdicts)
    whole = {name: sum(row.get(name, 0) for row in table.values()) for name in VERDICTS}
    for kind, row in [*sorted(table.items()), ("all", whole)]:
        print(f"{kind:12}" + "".join(f"{row.get(name, 0):>11}" for name in VERDICTS))
    refused = sum(one.code == 2 for one in verdicts)
    slowest, largest = max(one.seconds for one in verdicts), max(one.growth for one in verdicts)
    print(
        f"\n{len(verdicts)} cases of seed {seed} in {seconds:.0f} s on {processes} processes; {refused} refused in one line; "
        f"the slowest {slowest:.1f} s, the largest {largest / 1e6:.0f} MB beyond the {forked.held() / 1e6:.0f} MB of its parent"
    )


if __name__ == "__main__":
    sys.exit(main())
