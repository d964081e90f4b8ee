"""How good the demo's model is over several splits: `python -m tests.benchmarks.clinics --splits 10 --json FILE`.

Each split is one `fedqueue demo --seed I --json`, with its slow and its killed clinic, one after the other. `spread` is
the sample standard deviation over splits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import click

from broker.errors import FedqueueError

QUICK_VERSIONS: Final = 12
COMPARED: Final = ("alone", "federated", "pooled")


def demo(seed: int, folder: Path, *, versions: int | None) -> dict[str, Any]:
    """The figures of one demo."""
    figures = folder / f"{seed}.json"
    command = [
        sys.executable, "-m", "deploy.cli", "demo",
        "--seed", str(seed), "--json", str(figures), "--report", str(folder / f"{seed}.html"),
    ]  # fmt: skip
    if versions is not None:
        command += ["--versions", str(versions)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise FedqueueError(f"The demo of split {seed} ended with code {ended.returncode}: {ended.stderr[-500:]}")
    found: dict[str, Any] = json.loads(figures.read_text())
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each figure, and of what federating gains over staying alone, split by split."""
    auc = {name: _spread([run["auc"][name] for run in runs]) for name in COMPARED}
    gain = _spread([run["auc"]["federated"] - run["auc"]["alone"] for run in runs])
    return {
        "splits": len(runs),
        "auc": auc,
        "auc_gain_over_alone": gain,
        "seconds": _spread([run["seconds"] for run in runs]),
        "replay_same": all(run["replay_same"] for run in runs),
        "runs": [{"auc": run["auc"], "seconds": run["seconds"], "versions": run["versions"]} for run in runs],
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(fmean(values), 4),
        "spread": round(stdev(values), 4) if len(values) > 1 else 0.0,
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


@click.command()
@click.option("--splits", default=10, show_default=True, type=click.IntRange(1), help="Seeds 0 to SPLITS - 1.")
@click.option("--quick", is_flag=True, help=f"Only {QUICK_VERSIONS} versions a split.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(splits: int, *, quick: bool, json_file: Path | None) -> None:
    """Area under the ROC curve of four clinics alone, federated and pooled, over several splits."""
    runs = []
    with tempfile.TemporaryDirectory(prefix="fedqueue-clinics-") as folder:
        for seed in range(splits):
            runs.append(demo(seed, Path(folder), versions=QUICK_VERSIONS if quick else None))
            click.echo(f"split {seed}: {runs[-1]['auc']} in {runs[-1]['seconds']} s", err=True)
    text = json.dumps(summary(runs) | {"quick": quick}, indent=2)
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
