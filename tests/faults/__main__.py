"""Disturb runs: ``python -m tests.faults --rounds 1000 --seed 7``. `make faults` calls it."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.faults import scenarios
from tests.faults.rounds import Round, Runner
from tests.fuzz import forked


def main() -> int:
    """0 where nothing was lost, left behind, or other than without the disturbance."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).strftime("%Y%m%d")), help="default: today")
    parser.add_argument("--only", choices=[one.name for one in scenarios.SCENARIOS], action="append")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        done = disturb(asked.rounds, asked.seed, Path(folder), asked.processes, asked.only)
    tell(done, asked.seed, time.monotonic() - began, asked.processes)
    return 1 if any(one.problems for one in done) else 0


def disturb(rounds: int, seed: int, folder: Path, processes: int, only: list[str] | None = None) -> list[Round]:
    """Run rounds in several processes.

    Args:
        rounds: how many in all; each scenario has its share, and one at the least.
        seed: of all of them.
        folder: an empty directory.
        processes: how many at a time.
        only: these scenarios alone.
    """
    chosen = [one for one in scenarios.SCENARIOS if only is None or one.name in only]
    forked.warm(any(one.trains for one in chosen))
    root = folder / "inputs"
    root.mkdir()
    scenarios.build(root)
    whole = sum(one.share for one in chosen)
    plan = [one for one in chosen for _ in range(max(1, rounds * one.share // whole))]
    random.Random(seed).shuffle(plan)

    def work(one: int) -> Iterator[Round]:
        place = folder / f"rounds-{one}"
        place.mkdir()
        runner = Runner(root, place)
        for number in range(one, len(plan), processes):
            yield runner.round(plan[number], random.Random(f"{seed}/{number}"), str(number))

    return [Round(**line) for line in forked.shared_out(folder, processes, work, "the harness")]


def tell(done: list[Round], seed: int, seconds: float, processes: int) -> None:
    """The table, and what went wrong."""
    for one in done:
        for problem in one.problems:
            print(f"--- {one.scenario}, {one.faults}: {problem}\n")
    print(f"{'':16}{'rounds':>8}{'faults':>8}{'wrong':>8}{'seconds':>10}{'peak MB':>9}")
    for name in [*dict.fromkeys(one.scenario for one in done), "all"]:
        rows = [one for one in done if name in (one.scenario, "all")]
        wrong, faults = sum(bool(one.problems) for one in rows), sum(len(one.faults) for one in rows)
        peak = max(one.growth for one in rows) / 1e6
        print(f"{name:16}{len(rows):>8}{faults:>8}{wrong:>8}{sum(one.seconds for one in rows):>10.0f}{peak:>9.0f}")
    kinds = Counter(fault for one in done for fault in one.faults)
    print("\nfaults: " + ", ".join(f"{count} {fault}" for fault, count in sorted(kinds.items())))
    parent = f"{forked.held() / 1e6:.0f} MB of the parent"
    print(f"seed {seed}, {seconds:.0f} s on {processes} processes; peaks are beyond the {parent}")


if __name__ == "__main__":
    sys.exit(main())
