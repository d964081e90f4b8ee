"""Whatever the strategy: replayed, restored from any snapshot or switched in mid-run, the bits are the same."""

import json
from typing import Any

import numpy as np
import pytest

from aggregator.effects import AddVersion, Ruled
from aggregator.opening import prune_snapshots, replay, restore, rule_text
from aggregator.rules import differences, rule_in_force, switch
from aggregator.settings import Aggregation
from aggregator.strategies import STRATEGIES
from broker.errors import StorageError
from tests.aggregator.bench import Bench, floats, only
from tests.aggregator.conftest import MakeBench

SITES = ("A", "B", "C", "D")
EACH: list[dict[str, Any]] = [{"strategy": name} for name in STRATEGIES]
EACH += [{"server_optimizer": name, "server_rate": 0.1} for name in ("momentum", "fedadam", "fedyogi", "fadas")]
EACH += [
    {"strategy": "patient", "server_optimizer": "momentum"},
    {"strategy": "fedavg", "quorum": 2},
    {"weighting": "capped", "max_share": 0.3},
    {"normalised": True, "staleness": "hinge", "slope": 1.0, "grace": 0},
    {"strategy": "calibrated", "weighting": "equal", "one_place": False},
]


def named(options: dict[str, Any]) -> str:
    return "-".join(map(str, options.values()))


def feed(bench: Bench, updates: int, *, seed: int) -> None:
    """Updates of random sites, one of them seldom, from random versions that there are."""
    random = np.random.default_rng(seed)
    for _ in range(updates):
        name = str(random.choice(SITES, p=(0.35, 0.3, 0.25, 0.1)))
        base = bench.journal.versions()[int(random.integers(max(0, bench.version - 4), bench.version + 1))]
        site = bench.sites[name]
        (last,) = bench.journal.query("SELECT coalesce(max(sequence), 0) AS last FROM updates WHERE site = ?", name)
        delta = (random.normal(size=4) / 4).astype(np.float32)
        examples = int(random.integers(1, 50))
        where = {"base_version": base.version, "base_digest": base.digest}
        bench.feed(site.update(last["last"] + 1, delta, codec="int8", examples=examples, **where))


@pytest.fixture(params=EACH, ids=named)
def bench(request: pytest.FixtureRequest, make_bench: MakeBench) -> Bench:
    rule = Aggregation(**({"strategy": "fedbuff", "buffer_size": 2, "max_wait_s": 1e6} | request.param))
    made = make_bench(model=floats(1, 2, 3, 4), sites=SITES, aggregation=rule)
    made.start()
    feed(made, 30, seed=3)
    assert made.version >= 1
    return made


def restored_as_it_is(bench: Bench) -> bool:
    _, fold = restore(bench.journal, bench.place, bench.settings.aggregation)
    same = (fold.digest, fold.state.digest, fold.memory, fold.buffer)
    return same == (bench.fold.digest, bench.fold.state.digest, bench.fold.memory, bench.fold.buffer)


def test_replayed_or_restored_from_whatever_is_left_it_has_the_same_bits(bench: Bench) -> None:
    assert all(one.same for one in replay(bench.journal, bench.place))
    rows = bench.journal.versions()
    for row in rows[-2:]:
        if row.state is not None:
            bench.place.state(row.state).write_bytes(b"half")
    assert restored_as_it_is(bench)
    for row in (rows[-1], *rows[1:-1:2], *rows[1:]):
        bench.place.snapshot(row.digest).unlink(missing_ok=True)
        if row is rows[-1]:
            assert restored_as_it_is(bench)
    assert restored_as_it_is(bench)
    bench.boot()
    bench.start()
    feed(bench, 8, seed=4)
    assert all(one.same for one in replay(bench.journal, bench.place))


def test_pruning_keeps_states_with_their_snapshots(bench: Bench) -> None:
    prune_snapshots(bench.journal, bench.place, keep=2)
    rows = bench.journal.versions()
    kept = {row.version: row for row in [rows[0], *rows[-2:]]}.values()
    names = {f"{row.digest.hex()}.safetensors" for row in kept}
    names |= {f"state-{row.state.hex()}.safetensors" for row in kept if row.state is not None}
    assert {path.name for path in bench.place.models.iterdir()} == names
    assert restored_as_it_is(bench)


def test_a_changed_payload_shows_in_the_replay(bench: Bench) -> None:
    first, other = (b"".join(bench.journal.payload(ordinal).pieces(0)) for ordinal in (1, 2))
    assert other != first
    bench.journal.query("UPDATE updates SET payload = ? WHERE ordinal = 1", other)
    assert not all(one.same for one in replay(bench.journal, bench.place))


# ---- switching


@pytest.fixture
def switching(make_bench: MakeBench) -> Bench:
    made = make_bench(sites=SITES, aggregation=Aggregation(strategy="fedbuff", buffer_size=2))
    made.start()
    feed(made, 21, seed=5)
    return made


@pytest.mark.parametrize("options", EACH, ids=named)
def test_switched_in_mid_run_each_version_is_replayed_by_its_own_rule(
    switching: Bench, options: dict[str, Any]
) -> None:
    changed: dict[str, Any] = {"strategy": "fedbuff", "buffer_size": 3} | options
    wanted = Aggregation(**changed)
    before = switching.version
    switching.feed(Ruled(wanted, rule_text(wanted)))
    feed(switching, 15, seed=6)
    back = switching.settings.aggregation
    switching.feed(Ruled(back, rule_text(back)))
    feed(switching, 10, seed=7)
    rules = [json.loads(row.rule)["strategy"] for row in switching.journal.versions()[1:]]
    assert rules[:before] == ["fedbuff"] * before
    assert wanted.strategy in rules[before:]
    assert rules[-1] == "fedbuff"
    assert all(one.same for one in replay(switching.journal, switching.place))
    for row in switching.journal.versions()[before:]:
        switching.place.snapshot(row.digest).unlink(missing_ok=True)
    assert restore(switching.journal, switching.place, back)[1].digest == switching.fold.digest


def test_what_is_in_the_buffer_counts_by_the_new_rule(make_bench: MakeBench) -> None:
    bench = make_bench(sites=SITES, aggregation=Aggregation(strategy="fedbuff", buffer_size=4, weighting="equal"))
    bench.start()
    bench.feed(bench.sites["A"].update(1, floats(4, 0, 0, 0), examples=1))
    bench.feed(bench.sites["B"].update(1, floats(0, 4, 0, 0), examples=3))
    wanted = Aggregation(strategy="fedbuff", buffer_size=2, weighting="examples")
    (added,) = only(bench.feed(Ruled(wanted, rule_text(wanted))), AddVersion)
    assert (added.row.rule, bench.fold.model.tolist()) == (rule_text(wanted), [1.0, 3.0, 0.0, 0.0])


def test_the_file_holds_until_the_first_update_and_then_the_journal_does(switching: Bench, make_bench: Any) -> None:
    fresh, wanted = make_bench(sites=("A",)), Aggregation(strategy="ca2fl")
    assert rule_in_force(fresh.journal, wanted, at=5.0) == wanted
    assert [(row.version, row.at) for row in fresh.journal.rules()] == [(0, 1.0), (0, 5.0)]
    assert rule_in_force(fresh.journal, wanted, at=6.0) == wanted
    assert len(fresh.journal.rules()) == 2
    assert rule_in_force(switching.journal, wanted, at=5.0) == switching.settings.aggregation
    assert len(switching.journal.rules()) == 1


def test_a_switch_says_what_it_changes_and_is_journaled_once(switching: Bench) -> None:
    wanted = Aggregation(strategy="fedbuff", buffer_size=5, server_optimizer="momentum")
    changes = switch(switching.journal, wanted, at=9.0)
    assert [(one.option, one.before, one.after) for one in changes] == [
        ("buffer_size", 2, 5),
        ("server_optimizer", "none", "momentum"),
    ]
    assert switching.journal.rules()[-1].version == switching.version
    assert differences(switching.journal, wanted) == ()
    assert switch(switching.journal, wanted, at=10.0) == ()
    assert len(switching.journal.rules()) == 2


def test_a_damaged_update_stops_the_service_with_a_sentence(switching: Bench) -> None:
    switching.journal.query("UPDATE updates SET payload = x'00'")
    while len(switching.fold.buffer) != 1:
        feed(switching, 1, seed=1)
    switching.journal.query("UPDATE updates SET payload = x'00'")
    with pytest.raises(StorageError, match="is damaged"):
        feed(switching, 3, seed=8)
