"""Eight hospitals in trouble, asynchronous against rounds that wait for all: `python -m tests.benchmarks.hospitals`.

For each seed the rounds run first, then each asynchronous rule for a share of the time that the rounds took: the same
sites on the same split with the same plan and the same troubles (tests/benchmarks/arms.py). What is counted is accuracy
on rows that no site has; what is made of it is in tests/benchmarks/hospital_figures.py. The seconds are those of this
machine with its load, which is among the figures.
"""

import json
import sys
import tempfile
import threading
import tomllib
from pathlib import Path
from typing import Any, Final

import click

from broker.commands import STOPPED, run_cli
from broker.errors import UsageError
from broker.install import ensure_rabbitmq
from broker.serving import until_signalled
from deploy.watching import StoppedError
from tests.benchmarks.arms import Arm, Conditions, Onlooker, Outcome, run
from tests.benchmarks.hospital_figures import LAST, MEASURES, compared, kept, line, shown, spread, table, told

DAY_S: Final = 86_400.0
MAX_WAIT_S: Final = 2.0
DEFAULT: Final = 'strategy = "patient"'

Rule = dict[str, str | float]


class Comparison:
    """The runs so far, by seed: the rounds, and each of the `rules` by its text."""

    def __init__(self, rules: dict[str, Rule], *, rounds: int, share: float, stopping: threading.Event) -> None:
        self._rules, self._rounds, self._share, self._stopping = rules, rounds, share, stopping
        self.runs: dict[int, tuple[Outcome, dict[str, Outcome]]] = {}

    def measure(self, conditions: Conditions) -> None:
        """All runs of one seed."""
        onlooker = Onlooker(self._stopping, lambda text: click.echo(f"seed {conditions.seed}, {text}", err=True))
        with tempfile.TemporaryDirectory(prefix="fedqueue-hospitals-") as name:
            waiting = Arm("rounds", {"strategy": "fedavg", "max_wait_s": DAY_S}, rounds=self._rounds)
            rounds = run(waiting, conditions, Path(name) / "rounds", onlooker)
            others: dict[str, Outcome] = {}
            for number, (text, rule) in enumerate(self._rules.items()):
                free = Arm(text, {"max_wait_s": MAX_WAIT_S} | rule, seconds=self._share * rounds.seconds)
                others[text] = run(free, conditions, Path(name) / f"rule{number}", onlooker)
        self.runs[conditions.seed] = rounds, others

    def lines(self, seed: int) -> list[str]:
        """One seed to be read."""
        rounds, others = self.runs[seed]
        found = [line("rounds", rounds)]
        for text, outcome in others.items():
            found.append(line(text, outcome))
            found += [f"  {MEASURES[key]:<40} {shown(value)}" for key, value in compared(rounds, outcome).items()]
        return found

    def summary(self) -> dict[str, Any]:
        """Every rule over all seeds, and the promises over all runs."""
        figures = {
            text: spread([compared(rounds, others[text]) for rounds, others in self.runs.values()])
            for text in self._rules
        }
        outcomes = [one for rounds, others in self.runs.values() for one in (rounds, *others.values())]
        return {"seeds": len(self.runs), "rules": figures, **kept(outcomes)}

    def to_json(self, asked: dict[str, Any]) -> str:
        """All figures."""
        runs = [
            {
                "seed": seed,
                "rounds": told(rounds),
                "rules": {text: {"compared": compared(rounds, one), **told(one)} for text, one in others.items()},
            }
            for seed, (rounds, others) in self.runs.items()
        ]
        same = {"rounds": self._rounds, "share": self._share, **asked}
        return json.dumps({"asked": same, **self.summary(), "runs": runs}, indent=1) + "\n"


def rule_in(text: str) -> Rule:
    """An [aggregation] in a line."""
    try:
        found: Rule = tomllib.loads(f"rule = {{ {text} }}")["rule"]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{text!r} is no rule ({error}); give one such as: {DEFAULT}") from error
    return found


@click.command()
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(1), help="Seeds 0 to SEEDS - 1.")
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(LAST), help="Rounds that wait for all.")
@click.option("--rule", "rules", multiple=True, default=[DEFAULT], show_default=True, help="[aggregation] in a line.")
@click.option("--share", default=0.5, show_default=True, help="Of the rounds' time, for which each rule runs.")
@click.option("--round-s", default=0.2, show_default=True, help="How long a fast site trains; the slow one 20 times.")
@click.option("--learning-rate", default=0.4, show_default=True, help="Of all; with 0.4 the rounds are at their best.")
@click.option("--aggregator-killed-s", default=15.0, show_default=True, help="When the aggregator is killed; 0: not.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures and curves to this file.")
def main(
    *, seeds: int, rounds: int, rules: tuple[str, ...], share: float, json_file: Path | None, **options: float
) -> int:
    """How soon an asynchronous federation is as good as rounds that wait for a slow, a dying and a cut-off hospital."""
    parsed = {text: rule_in(text) for text in rules}
    ensure_rabbitmq(log=click.echo)
    with until_signalled() as stopping:
        comparison = Comparison(parsed, rounds=rounds, share=share, stopping=stopping)
        try:
            for seed in range(seeds):
                comparison.measure(Conditions(seed, **options))
                click.echo("\n".join([f"\nseed {seed}", *comparison.lines(seed), ""]))
                if json_file is not None:  # after every seed: what is stopped leaves what it has
                    json_file.write_text(comparison.to_json(options))
        except StoppedError:
            click.echo("stopped", err=True)
            return STOPPED
    _tell(comparison.summary())
    return 0


def _tell(summary: dict[str, Any]) -> None:
    for text, figures in summary["rules"].items():
        click.echo("\n" + "\n".join(table(text, figures)))
    same = "the same" if summary["replayed"] else "DIFFERS"
    click.echo(f"\nAll runs: lost {summary['lost']}, counted twice {summary['doubled']}, replay {same}.")


if __name__ == "__main__":
    sys.exit(run_cli(main))
