"""How many updates the simulator does in a second: `python -m tests.benchmarks.simulator --json FILE`.

A thousand phones on the quadratic surrogate (`phones-1000`), one process. Processor time is what counts on a machine
that others use; memory is the process's largest.
"""

import resource
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from deploy.simulation.run import simulate
from deploy.simulation.scenario import load


@click.command()
@click.option("--updates", default=50_000, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(updates: int, json_file: Path | None) -> None:
    """Measure one run."""
    scenario = load("phones-1000").lasting(1e6)
    scenario = msgspec.structs.replace(scenario, stop=msgspec.structs.replace(scenario.stop, updates=updates))
    began, used = time.monotonic(), time.process_time()
    result = simulate(scenario, "phones-1000", "", 0)
    figures: dict[str, Any] = {
        "updates": result.updates,
        "versions": result.versions,
        "virtual_hours": round(result.seconds / 3600, 2),
        "seconds": round(time.monotonic() - began, 1),
        "processor_seconds": round(time.process_time() - used, 1),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "sound": result.sound,
    }
    click.echo("\n".join(f"{name:<18} {value}" for name, value in figures.items()))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))


if __name__ == "__main__":
    main()
