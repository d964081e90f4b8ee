"""The command that runs fault schedules: what it says of each end, and its exit codes."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.link import Outgoing
from tests.federation.__main__ import main
from tests.federation.campaign import scratch
from tests.federation.invariants import CHECKS
from tests.federation.tampering import inject
from tests.federation.world import World

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.federation"]


def test_where_everything_holds_it_says_what_was_done_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedules", "12", "--seed", "40"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if not line.startswith(" "))
    assert (told["schedules"], told["lost"], told["doubled"]) == ("12", "0", "0")
    assert {"updates", "faults", "speed"} <= set(told)


def test_a_failing_seed_is_told_with_a_command_that_shows_exactly_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schedules", "40", "--mutant", "freed-on-confirm"]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("FAILED"))
    told, command = lines[place].partition(": ")[2], shlex.split(lines[place + 1])
    assert command[:3] == ["python", "-m", "tests.federation"]
    assert main(command[3:]) == 1
    shown = capsys.readouterr().out
    assert all(f"BROKEN {one}" in shown for one in told.split("; "))
    assert " takes Delivery(" in shown
    assert "\n--- step " in shown


def test_ctrl_c_ends_it_with_what_was_done_so_far_and_130() -> None:
    with subprocess.Popen(
        [*COMMAND, "--schedules", "100000", "--jobs", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert "of 100000 schedules" in running.stderr.readline()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    assert running.returncode == 130
    assert "Traceback" not in err
    assert "Ended by Ctrl-C after" in out
    assert "lost          0" in out


@pytest.mark.parametrize("wrong", [["--schedules", "0"], ["--mutant", "nobody"], ["--seed", "x"]])
def test_what_cannot_be_run_is_said_in_a_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert f"argument {wrong[0]}" in capsys.readouterr().err


def test_a_queue_over_its_limit_is_seen_at_the_step_at_which_it_is() -> None:
    with scratch() as folder:
        world = World(folder, 1, in_memory=True)
        rounds: Any = world.broker._stores["fq.f.S0.rounds"]
        rounds._max_length = 2  # as if an operator's policy had lifted the limit
        world.aggregator.start()
        for number in (1, 2):
            inject(world, Outgoing("", "fq.f.S0.rounds", b"announcement", number), "aggregator")
        world.one_step(start_dead=False)
        for site in world.sites:
            site.start()
        assert CHECKS["bounded queues"](world) == "2 messages, 24 bytes ready in fq.f.S0.rounds at step 1"
        world.close()
