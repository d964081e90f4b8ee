"""Whole runs of the surrogate: the same every time, nothing lost whatever fails, and absences as they are told."""

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from deploy.simulation.result import Result
from deploy.simulation.run import learning_of, simulate
from deploy.simulation.scenario import parse
from deploy.simulation.world import World
from tests.simulation.small import LARGER, TROUBLE, quadratics, run

PROGRAM = """
from tests.simulation.small import TROUBLE, run
print(run(TROUBLE, seed=3).journal)
"""


def test_two_runs_of_a_seed_write_the_same_journal_and_another_seed_another() -> None:
    first, again, other = run(TROUBLE, seed=3), run(TROUBLE, seed=3), run(TROUBLE, seed=4)
    assert first == again
    assert first.journal != other.journal


def test_another_process_writes_the_same_journal() -> None:
    """Also where the order of Python's sets is another."""
    found = set[str]()
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-c", PROGRAM]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(ran.stdout.strip())
    assert found == {run(TROUBLE, seed=3).journal}


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_counted_twice_whatever_fails(seed: int) -> None:
    result = run(TROUBLE, sites=4, seconds=1800.0, seed=seed)
    assert result.ledger.balanced, result.ledger.line
    assert result.replayed
    assert result.kills > 10
    assert result.updates > 40
    assert all(result.participation.values())


def test_what_a_slow_line_cannot_carry_waits_in_the_outbox() -> None:
    fast, slow = run(), run("[links]\nup_mbit = 0.0001\n")  # 12.5 bytes a second, where an update has hundreds
    assert slow.updates < fast.updates / 2
    assert slow.ledger.waiting > 20
    assert 3 * 12.5 * 500 < slow.bytes_up <= 3 * 12.5 * 600
    assert fast.bytes_up > 2 * slow.bytes_up


@pytest.mark.parametrize(("up_mbit", "choices"), [(1.0, {"top5", "int8-coarse"}), (0.01, {"top5"})])
def test_the_codec_that_a_site_chooses_follows_from_virtual_time(up_mbit: float, choices: set[str]) -> None:
    """About 8,000 bytes as int8-coarse, and rounds of 10 s: a line of 125,000 bytes a second is fast, 1,250 slow."""
    wanted = parse(LARGER.format(up_mbit=up_mbit), Path("larger.toml"))
    made = list[list[str]]()
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            world = World(wanted, "", learning_of(wanted, 0), 0, path=Path(folder))
            world.run()
            outbox = world.sites["S1"].outbox
            made.append([outbox.update(sequence).choice for sequence in range(1, outbox.last_sequence() + 1)])
            assert (world.settings.model_codec, world.settings.keyframe_every) == ("int8", 7)
            world.close()
    assert made[0] == made[1]
    assert (made[0][0], set(made[0])) == ("top5", choices)


def test_a_slow_site_contributes_as_its_speed_says() -> None:
    result = run('[[special]]\nwho = "S2"\nslower = 10.0\n', seconds=2000.0)
    assert result.participation["S2"] == pytest.approx(result.participation["S1"] / 10, abs=3)
    assert max(result.staleness) > 5


def test_the_updates_of_an_absent_site_count_after_its_return() -> None:
    result = run('[[absences]]\nwho = "S2"\nfrom_s = 205.0\nto_s = 400.0\n')
    assert result.absent == ("S2",)
    assert result.away is not None
    assert 0 < result.participation["S2"] < result.participation["S1"]
    assert result.updates == result.ledger.sent - result.ledger.waiting
    # S2 was half-way through a round: it finishes it on its return, many versions later.
    assert max(result.staleness) > 15


def test_equal_time_gives_a_slow_site_fewer_steps() -> None:
    slow = '[[special]]\nwho = "S2"\nslower = 8.0\n'
    scenario = quadratics(slow, seconds=3000.0)
    equal = msgspec.structs.replace(scenario, plan=msgspec.structs.replace(scenario.plan, equal_time=True))
    plain, fair = (simulate(one, "small", "", 0) for one in (scenario, equal))
    assert fair.participation["S2"] > 2 * plain.participation["S2"]


def test_a_site_that_never_comes_back_holds_nobody_up() -> None:
    result = run('[[absences]]\nwho = "S3"\nfrom_s = 100.0\n', seconds=1000.0)
    assert result.participation["S3"] < 15
    assert result.participation["S1"] > 60


@pytest.mark.parametrize("seed", range(4))
def test_a_site_that_keeps_crashing_stays_away_while_it_is_away(seed: int) -> None:
    """Though it waits to be started again when its absence begins."""
    text = '[[absences]]\nwho = "S2"\nfrom_s = 205.0\nto_s = 400.0\n'
    more = '[[special]]\nwho = "S2"\nkills_per_hour = 120.0\n[faults]\nrestart_s = 30.0\n'
    made = made_by_s2(text + more, seed=seed)
    assert [at for at, _ in made if 205.0 < at < 400.0] == []
    assert [at for at, _ in made if at > 400.0]


def test_a_killed_aggregator_has_what_it_had_committed_and_no_more(tmp_path: Path) -> None:
    scenario = msgspec.structs.replace(quadratics(seconds=130.0), presence_s=1000.0)  # no event but updates
    world = World(scenario, "", learning_of(scenario, 0), 0, path=tmp_path)
    world.clock.at(100.0, lambda: setattr(world.aggregator.fuse, "left", 0))  # the next thing on its disk is the last
    world.run()
    assert not world.aggregator.alive
    assert not world.journal._database.in_transaction
    world.close()


def made_by_s2(more: str, *, seed: int = 0) -> list[tuple[float, float]]:
    """When each of its updates was made and accepted."""
    scenario = quadratics(more)
    with tempfile.TemporaryDirectory() as folder:
        world = World(scenario, "", learning_of(scenario, seed), seed, path=Path(folder))
        world.run()
        rows = world.journal.query("SELECT made_at, accepted_at FROM updates WHERE site = 'S2'")
        assert world.ledger().balanced
        world.close()
    return [(row["made_at"], row["accepted_at"]) for row in rows]


@pytest.mark.parametrize(("how", "still_trains"), [("stopped", False), ("offline", True), ("resting", False)])
def test_ways_of_being_away(how: str, *, still_trains: bool) -> None:
    """While its line alone is down, a site finishes its round and sends it when the line is back."""
    text = f'[[absences]]\nwho = "S2"\nfrom_s = 205.0\nto_s = 400.0\nhow = "{how}"\n'
    made = made_by_s2(text)
    made_away = [accepted for at, accepted in made if 205.0 < at < 400.0]
    assert [at > 400.0 for at in made_away] == ([True] if still_trains else [])
    assert len(made) > 20


def test_a_late_joiner_takes_part_from_then_on() -> None:
    result = run('[[special]]\nwho = "S3"\njoins_s = 300.0\n')
    assert result.participation["S3"] == pytest.approx(result.participation["S1"] / 2, abs=3)


def test_a_run_ends_with_its_versions_or_its_updates() -> None:
    by_versions, by_updates = stopped("versions = 7"), stopped("updates = 20")
    assert by_versions.versions == 7
    assert 20 <= by_updates.updates <= 23
    assert by_updates.seconds < 600.0


def stopped(line: str) -> Result:
    scenario = quadratics(f"{line}\n")
    return simulate(scenario, "small", "", 0)


def test_the_target_is_reached_when_the_curve_says_so() -> None:
    result = run("[target]\nvalue = 0.5\n")
    assert result.reached_s is not None
    before = [point.value for point in result.curve if point.seconds < result.reached_s]
    assert before
    assert min(before) > 0.5
    assert run("[target]\nvalue = 0.0\n").reached_s is None


def test_strategies_meet_the_same_world() -> None:
    scenario = quadratics('[[absences]]\nwho = 1\nfrom_s = 100.0\n[strategies.one]\nstrategy = "fedasync"\n')
    plain, one = (simulate(scenario, "small", name, 5) for name in ("", "one"))
    assert plain.absent == one.absent
    assert plain.versions < one.versions
