"""`fedqueue local` as a person runs it: real processes and a broker of its own, from a folder of files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.commands import module
from tests.deploy.folders import COX, LOGISTIC, heart, own

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("rabbitmq")]
PATIENCE_S = 120.0


def local(*words: object, timeout_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.cli", "local", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def figures(folder: Path, *words: object) -> tuple[dict[str, Any], str]:
    """What a run wrote with --json, and what it said."""
    path = folder.parent / "figures.json"
    done = local(folder, "--json", path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout


def left_running(folder: Path) -> list[str]:
    """Processes that still speak of the folder."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if str(folder) in line and "pytest" not in line]


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_folder_is_federated_and_a_file_that_does_not_fit_is_refused_while_the_others_go_on(tmp_path: Path) -> None:
    folder = heart(tmp_path / "heart")
    told, said = figures(folder, "--compare")
    (run,) = told["runs"]
    assert run["versions"] >= 3
    ledger = run["ledger"]
    assert (ledger["lost"], ledger["doubled"]) == (0, 0)
    assert ledger["sent"] == ledger["accepted"] + ledger["refused"] + ledger["waiting"]
    assert run["replay_same"]
    assert list(run["scores"]["sites"]) == ["north", "south", "tiny"]
    assert {"auc", "accuracy", "calibration", "brier", "loss"} <= set(run["scores"]["sites"]["north"])
    assert run["scores"]["sites"]["tiny"] == {"rows": 0.0}  # its one patient trains, nobody is held out
    assert set(run["scores"]["histograms"]) == {"auc", "calibration"}
    assert list(run["scores"]["compared"]) == ["north alone", "south alone", "tiny alone", "federated", "pooled"]
    assert "row 21" in run["refused"]["wrong"]
    assert re.search(r"wrong failed \(.*row 21, column 'age'", said), said

    results = folder / "results"
    assert {path.name for path in results.iterdir()} >= {"report.html", "model.safetensors", "model.md"}
    assert not (results / "state").exists()
    assert "wrong was refused" in (results / "report.html").read_text()
    assert not left_running(folder)


def test_a_stopped_run_leaves_no_process_and_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = heart(tmp_path / "heart")
    command = [sys.executable, "-m", "deploy.cli", "local", str(folder), "--versions", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    journal = folder / "results" / "state" / "run-0" / "aggregator" / "journal.db"
    eventually(lambda: process.poll() is not None or _versions(journal) >= 3, "It does not get to version 3.")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    assert "--resume" in said
    assert not left_running(folder)
    stopped_at = _versions(journal)

    refused = local(folder)
    assert (refused.returncode, "add --resume to go on, --restart to drop it" in refused.stderr) == (2, True)
    told, _ = figures(folder, "--resume", "--versions", stopped_at + 2)
    assert told["runs"][0]["versions"] >= stopped_at
    assert told["runs"][0]["replay_same"]
    assert (told["runs"][0]["ledger"]["lost"], told["runs"][0]["ledger"]["doubled"]) == (0, 0)


def _versions(journal: Path) -> int:
    """The newest version, by the aggregator's own command."""
    if not journal.is_file() or not (journal.parent / "aggregator.toml").is_file():
        return 0
    done = module("aggregator", "status", journal.parent, "--json")
    return int(json.loads(done.stdout)["version"] or 0) if done.returncode == 0 else 0


def test_a_hospital_left_out_is_judged_and_repeats_have_a_spread(tmp_path: Path) -> None:
    told, said = figures(heart(tmp_path / "heart"), "--leave-out", "south", "--seeds", 2)
    assert [(run["seed"], run["left_out"]) for run in told["runs"]] == [(0, "south"), (1, "south")]
    for run in told["runs"]:
        assert "south" not in run["scores"]["sites"]
        (rows,) = run["scores"]["left_out"].values()
        assert rows["all rows of south, federated without it"]["rows"] == 60
        assert rows["held-out rows of south, south alone"]["rows"] in {15, 16}  # a quarter of either label
    assert told["spread"]["federated"]["runs"] == 2
    assert "At south, which took no part" in said
    assert "auc over 2 runs" in said


def test_survival_is_compared_by_the_c_index_and_many_sites_share_a_process(tmp_path: Path) -> None:
    told, said = figures(heart(tmp_path / "heart", COX), "--sites-per-process", 3)
    assert told["metric"] == "c_index"
    assert 0 <= told["runs"][0]["scores"]["pooled"]["c_index"] <= 1
    assert "4 sites share 2 processes." in said


def test_an_own_model_in_one_file_is_federated(tmp_path: Path) -> None:
    told, _ = figures(own(tmp_path / "own"), "--minutes", 0.05, "--versions", 0)
    (run,) = told["runs"]
    assert list(run["scores"]["sites"]) == ["a", "b"]
    assert run["versions"] >= 1
    assert (run["ledger"]["lost"], run["ledger"]["doubled"]) == (0, 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--leave-out", "east"], "choose one of north, south, tiny, wrong"),
        (["--versions", "0", "--minutes", "0"], "would have no end"),
        (["--resume"], "There is no stopped run"),
        (["--json", "/nowhere/f.json"], "cannot be written"),
        (["--init"], "is there already"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_started(tmp_path: Path, words: list[str], told: str) -> None:
    done = local(heart(tmp_path / "heart"), *words)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_in_which_nothing_fits_ends_with_the_reason(tmp_path: Path) -> None:
    folder = heart(tmp_path / "heart", LOGISTIC.replace("[columns.age]", "[columns.weight]"))
    done = local(folder)
    assert done.returncode == 2
    assert "can take part" in done.stderr
    assert "weight" in done.stdout
    assert os.listdir(folder)  # noqa: PTH208 - the files are as they were
