"""`fedqueue demo` as a person runs it, only shorter."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("rabbitmq")]
PATIENCE_S = 120.0
DEMO = [sys.executable, "-m", "deploy.cli", "demo"]


def own(folder: Path) -> dict[str, str]:
    """The environment with a folder of its own for temporary files, by which a demo's processes are known."""
    folder.mkdir()
    return os.environ | {"TMPDIR": str(folder)}


def left_running(marks: set[str]) -> list[str]:
    """Processes that still speak of a folder of these demos."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if any(mark in line for mark in marks)]


def test_four_clinics_one_slow_one_killed_and_every_update_accounted_for(tmp_path: Path) -> None:
    figures, report = tmp_path / "figures.json", tmp_path / "report.html"
    command = [*DEMO, "--versions", "8", "--seed", "1", "--json", str(figures), "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(figures.read_text())
    assert set(told["auc"]) == {"alone", "federated", "pooled"}
    ledger = told["ledger"]
    assert (ledger["lost"], ledger["doubled"]) == (0, 0)
    assert ledger["sent"] == ledger["accepted"] + ledger["refused"] + ledger["waiting"]
    assert told["replay_same"]
    assert told["versions"] >= 8
    for words in (
        "Broker console: http://127.0.0.1:",
        "NY alone",
        "lost 0, counted twice 0",
        "same weights bit for bit",
    ):
        assert words in done.stdout
    assert "MS was killed (SIGKILL) and came back." in report.read_text()


def test_two_demos_side_by_side_and_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    pipe, into = subprocess.PIPE, subprocess.STDOUT
    demos = [subprocess.Popen(DEMO, stdout=pipe, stderr=into, text=True, env=own(tmp_path / name)) for name in "ab"]
    for demo in demos:
        assert demo.stdout is not None
        said = ""
        while not re.search(r"version [1-9]", said):
            line = demo.stdout.readline()
            assert line, said
            said += line
    for demo in demos:
        demo.send_signal(signal.SIGINT)
    assert [demo.wait(PATIENCE_S) for demo in demos] == [130, 130]
    for demo in demos:
        assert demo.stdout is not None
        demo.stdout.close()
    assert not left_running({str(tmp_path)})
