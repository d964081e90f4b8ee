"""The command behind `make faults`: run fault schedules, or show one of them step by step.

Exit code 0: everything held; 1: an invariant is broken; 130: ended by Ctrl-C.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence

from tests.federation.actors import Sound
from tests.federation.campaign import Tally, run_campaign, scratch
from tests.federation.mutants import MUTANTS
from tests.federation.schedule import run_schedule

EXAMPLES = """examples:
  python -m tests.federation --schedules 10000 --jobs 2      seeds 0 to 9999 in two processes
  python -m tests.federation --seed 123 --verbose            one schedule again, with every fault and step
  python -m tests.federation --schedules 100 --mutant no-dedupe    a broken design, which must be found
"""
WIDTH, EVERY_S = 100, 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    seeds = range(asked.seed, asked.seed + asked.schedules)
    if asked.verbose:
        return max([_show(seed, asked.mutant) for seed in seeds], default=0)
    started = time.monotonic()
    tally, interrupted = run_campaign(seeds, jobs=asked.jobs, mutant=asked.mutant, progress=_Progress(len(seeds)).tell)
    _report(tally, time.monotonic() - started, asked.mutant)
    if interrupted:
        print(f"Ended by Ctrl-C after {tally.schedules} of {len(seeds)} schedules.")
        return 130
    return 1 if tally.failing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.federation",
        description="Run whole federations in which everything fails that can, and check what must hold.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schedules", type=_positive, default=1, metavar="N", help="how many (1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed (0); the others follow it")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes side by side (1)")
    parser.add_argument("--mutant", choices=MUTANTS, help="a broken design in the place of the product")
    parser.add_argument("--verbose", action="store_true", help="print every fault and step")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _show(seed: int, mutant: str | None) -> int:
    """One schedule, step by step; its exit code."""
    logging.disable(logging.CRITICAL)
    with scratch() as folder:
        outcome = run_schedule(folder, seed, mutant=MUTANTS[mutant] if mutant else Sound, tell=print)
    print(f"seed {seed}: {outcome.sent} updates, {len(outcome.story)} faults, digest {outcome.digest}")
    for one in outcome.broken:
        print(f"BROKEN {one.invariant}: {one.detail}")
    return 1 if outcome.broken else 0


class _Progress:
    """One line that changes at a terminal; a line now and then where there is none."""

    def __init__(self, total: int) -> None:
        self._total, self._next, self._live = total, 0.0, sys.stderr.isatty()

    def tell(self, tally: Tally, elapsed_s: float) -> None:
        if elapsed_s < self._next:
            return
        self._next = elapsed_s + (0.5 if self._live else EVERY_S)
        left_s = elapsed_s / tally.schedules * (self._total - tally.schedules)
        line = (
            f"{tally.schedules} of {self._total} schedules, {_failing(tally)}, "
            f"{tally.schedules / elapsed_s:.0f} a second, about {_duration(left_s)} left"
        )
        print(f"\r{line:<{WIDTH}}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)


def _failing(tally: Tally) -> str:
    return f"failing: {' '.join(map(str, sorted(tally.failing)))}" if tally.failing else "none failing"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _report(tally: Tally, elapsed_s: float, mutant: str | None) -> None:
    if sys.stderr.isatty():
        print(f"\r{'':<{WIDTH}}\r", end="", file=sys.stderr, flush=True)
    starting = tally.faults.pop("killed while starting", 0)
    kills = sum(count for kind, count in tally.faults.items() if kind.startswith("killed"))
    print(f"schedules     {tally.schedules}")
    print(f"updates sent  {tally.sent}")
    print(f"lost          {tally.lost}")
    print(f"doubled       {tally.doubled}")
    print(f"faults        {sum(tally.faults.values())}, of which {kills} kills, {starting} of these while starting:")
    for kind, count in sorted(tally.faults.items()):
        print(f"  {kind:<34}{count:>9}")
    print(f"speed         {tally.schedules / max(elapsed_s, 1e-9):.1f} schedules a second")
    for seed, line in sorted(tally.failing.items()):
        print(f"FAILED seed {seed}: {line}")
        print(f"  python -m tests.federation --seed {seed}{f' --mutant {mutant}' if mutant else ''} --verbose")


if __name__ == "__main__":
    sys.exit(main())
