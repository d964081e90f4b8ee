"""Exactly once: whatever is delivered again, and wherever the aggregator is killed, an update counts once."""

import hashlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from aggregator.effects import Accept, AddVersion, KeepPart, Move, NoteMade, Refuse, StoreEffect
from aggregator.opening import replay
from aggregator.settings import Aggregation
from broker.codecs import encode
from broker.drive import Ack, Publish
from broker.link import Confirmed, Declared, Delivery
from broker.messages import Peer
from tests.aggregator.bench import Bench, floats, only, published
from tests.aggregator.conftest import MakeBench

PAIR = Aggregation(buffer_size=2)
WHOLE_STATE = "SELECT site, sequence, ordinal, weight FROM updates", "SELECT version, hex(digest) FROM versions"


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench(aggregation=PAIR)
    made.start()
    return made


def journaled(bench: Bench) -> list[tuple[object, ...]]:
    return [tuple(row) for sql in WHOLE_STATE for row in bench.journal.query(sql)]


def kinds(effects: list[object]) -> list[type]:
    return [type(one) for one in effects]


def test_an_update_is_stored_then_acked_then_receipted(bench: Bench) -> None:
    delivery = bench.sites["A"].update(1, floats(1, 2, 3, 4))
    effects = bench.feed(delivery)
    accept, ack, receipt = [one for one in effects if isinstance(one, Accept | Ack | Publish)]
    assert isinstance(accept, Accept)
    assert isinstance(receipt, Publish)
    assert ack == Ack(delivery)
    assert (accept.row.update.sequence, receipt.message.token) == (1, ("receipt", "A"))


def test_a_version_is_stored_after_the_update_and_made_once_both_are_committed(bench: Bench) -> None:
    bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    effects = bench.loop.handle(bench.sites["B"].update(1, floats(1, 1, 1, 1)), bench.now)
    assert kinds(effects) == [Accept, Ack, AddVersion, Move]
    bench.performer.stage(effects)
    assert (bench.told, bench.fold.model.tolist()) == ([], [0.0] * 4)
    bench.performer.flush()
    assert bench.fold.model.tolist() == [1.0] * 4
    assert kinds(bench.loop.handle(bench.told.pop(0), bench.now))[0] == NoteMade


def test_the_same_message_ten_times_is_one_update(bench: Bench) -> None:
    delivery = bench.sites["A"].update(1, floats(2, 0, 0, 0))
    effects = bench.feed(delivery)
    state, total = journaled(bench), bench.pending.copy()
    for _ in range(9):
        again = bench.feed(delivery)
        assert (again[0], only(again, StoreEffect)) == (Ack(delivery), [])  # type: ignore[arg-type]
        (receipt,) = bench.receipts("A", again)
        assert (receipt.through, receipt.refused) == (1, [])
        effects += again
    assert len(only(effects, Accept)) == 1
    assert (journaled(bench), bench.version) == (state, 0)
    assert np.array_equal(bench.pending, total)


def test_the_same_sequence_with_another_content_is_not_taken_again(bench: Bench) -> None:
    bench.feed(bench.sites["A"].update(1, floats(2, 0, 0, 0)))
    assert not only(bench.feed(bench.sites["A"].update(1, floats(9, 9, 9, 9))), StoreEffect)  # type: ignore[arg-type]
    assert bench.pending.tolist() == [2.0, 0.0, 0.0, 0.0]


def day(bench: Bench) -> list[Delivery]:
    """Seven updates of two sites, one refused: with buffers of two, three versions."""
    random, a, b = np.random.default_rng(3), bench.sites["A"], bench.sites["B"]
    delta = [random.normal(size=4).astype(np.float32) for _ in range(7)]
    return [
        a.update(1, delta[0], examples=3), b.update(1, delta[1], examples=5, codec="int8"),
        a.update(2, delta[2]), a.update(3, delta[3], task="other"), b.update(2, delta[4], examples=7),
        a.update(4, delta[5]), b.update(3, delta[6], examples=2),
    ]  # fmt: skip


def finish(bench: Bench, deliveries: list[Delivery]) -> tuple[int, bytes, list[tuple[object, ...]]]:
    for delivery in deliveries:
        bench.feed(delivery)
    return bench.version, bench.fold.model.tobytes(), journaled(bench)


@pytest.fixture
def calm(make_bench: MakeBench) -> tuple[list[Delivery], Bench, int]:
    """A day without a kill: its messages, its end, and how many effects it had."""
    bench = make_bench(aggregation=PAIR, sites=("A", "B"))
    bench.start()
    messages, count = day(bench), 0
    for delivery in messages:
        count += len(bench.feed(delivery))
    assert bench.version == 3
    return messages, bench, count


def twin(make_bench: MakeBench, other: Bench) -> Bench:
    """Another aggregator with the same sites, so that the same messages reach it."""
    made = make_bench(aggregation=PAIR)
    made.key, made.sites = other.key, other.sites
    made.journal.begin()
    for name, site in other.sites.items():
        made.journal.query("UPDATE sites SET public_key = ? WHERE site = ?", site.party.key.public.to_text(), name)
    made.journal.commit()
    made.boot()
    made.start()
    return made


def killed_at(bench: Bench, messages: list[Delivery], kill: int) -> None:
    """Perform `kill` effects of the day, then lose the process; the broker gives back all that was not acked."""
    left, done = kill, 0
    for delivery in messages:
        effects = bench.feed(delivery, first=left)
        if left < len(effects):
            acked = Ack(delivery) in effects[:left]
            bench.boot()
            bench.up()
            finish(bench, messages[done + acked :])
            return
        left, done = left - len(effects), done + 1


def test_killed_between_any_two_effects_it_ends_on_the_same_bits(
    make_bench: MakeBench, calm: tuple[list[Delivery], Bench, int]
) -> None:
    messages, undisturbed, count = calm
    expected = finish(undisturbed, [])
    for kill in range(count):
        bench = twin(make_bench, undisturbed)
        killed_at(bench, messages, kill)
        assert finish(bench, []) == expected, f"killed after {kill} effects"
        assert all(one.same for one in replay(bench.journal, bench.place))
        bench.feed(bench.sites["B"].hello(2))  # a receipt lost with the process comes with the site's next hello
        assert bench.receipts("B")[-1].through == 3


def test_everything_delivered_again_after_every_kill_changes_nothing(
    make_bench: MakeBench, calm: tuple[list[Delivery], Bench, int]
) -> None:
    messages, undisturbed, _ = calm
    expected = finish(undisturbed, [])
    bench = twin(make_bench, undisturbed)
    for end in range(1, len(messages) + 1):
        finish(bench, messages[:end])
        bench.boot()
        bench.up()
    assert finish(bench, messages) == expected


# ---- updates of several parts

BIG = np.random.default_rng(5).normal(size=64).astype(np.float32)


@pytest.fixture
def parted(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Parts of 100 bytes, so that a small update has several."""
    monkeypatch.setattr("broker.messages.PART_BYTES", 100)
    made = make_bench(model=np.zeros(64, dtype=np.float32), aggregation=PAIR)
    made.start()
    return made


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 0, 2, 2, 1)])
def test_parts_in_any_order_and_twice_make_one_update(parted: Bench, order: tuple[int, ...]) -> None:
    parts = parted.sites["A"].parts(1, BIG)
    assert len(parts) == 3
    effects = [one for part in order for one in parted.feed(parts[part])]
    (accept,) = only(effects, Accept)
    payload = b"".join(parted.journal.payload(accept.row.ordinal).pieces(0))
    assert hashlib.sha256(payload).digest() == accept.row.update.payload_digest
    assert np.array_equal(parted.pending, BIG)
    assert parted.journal.query("SELECT * FROM unfinished") == []


def test_a_part_is_kept_before_it_is_acked(parted: Bench) -> None:
    first = parted.sites["A"].parts(1, BIG)[0]
    effects = parted.feed(first)
    assert kinds(effects)[:2] == [KeepPart, Ack]
    (receipt,) = parted.receipts("A", effects)
    assert (receipt.through, receipt.beyond) == (0, [])


def test_a_restart_between_parts_loses_none(parted: Bench) -> None:
    for part in parted.sites["A"].parts(1, BIG):
        parted.feed(part)
        parted.boot()
        parted.up()
    assert np.array_equal(parted.pending, BIG)


def test_a_batch_is_committed_once_it_holds_much(parted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hold many parts in memory."""
    monkeypatch.setattr("aggregator.service.BATCH_BYTES", 150)
    (first, second, _), (other, *_) = parted.sites["A"].parts(1, BIG), parted.sites["B"].parts(1, BIG)
    parted.performer.stage(parted.loop.handle(first, parted.now))
    assert Ack(first) not in parted.link.asked
    parted.performer.stage(parted.loop.handle(other, parted.now))
    assert parted.link.asked[-2:] == [Ack(first), Ack(other)]
    parted.performer.stage(parted.loop.handle(second, parted.now))
    assert parted.link.asked[-1] == Ack(other)


def test_a_newer_update_makes_room_and_the_older_is_taken_when_it_comes_whole(parted: Bench) -> None:
    older, newer = parted.sites["A"].parts(1, BIG), parted.sites["A"].parts(2, BIG)
    parted.feed(older[0])
    for part in newer:
        parted.feed(part)
    (receipt,) = parted.receipts("A")[-1:]
    assert (receipt.through, receipt.beyond) == (0, [2])
    assert not [one for part in older[1:] for one in only(parted.feed(part), Accept)]  # part 0 is gone
    assert only(parted.feed(older[0]), Accept)
    assert parted.receipts("A")[-1].through == 2


def test_parts_of_two_sites_may_interleave(parted: Bench) -> None:
    pairs = zip(parted.sites["A"].parts(1, BIG), parted.sites["B"].parts(1, BIG), strict=True)
    effects = [one for pair in pairs for part in pair for one in parted.feed(part)]
    assert [one.row.site for one in only(effects, Accept)] == ["A", "B"]
    assert parted.fold.model == pytest.approx(BIG)


def test_parts_that_are_not_the_signed_payload_are_refused_with_their_sequence(parted: Bench) -> None:
    parts = parted.sites["A"].parts(1, BIG, payload_digest=bytes(32))
    (refusal,) = [one for part in parts for one in only(parted.feed(part), Refuse)]
    assert (refusal.sequence, refusal.reason) == (1, "its parts are not the payload that was signed")
    assert parted.receipts("A")[-1].refused == [(1, refusal.reason)]
    assert parted.journal.query("SELECT * FROM parts") == parted.journal.query("SELECT * FROM unfinished") == []


def test_a_damaged_part_is_refused_when_it_comes_with_the_number_of_its_chunk(parted: Bench) -> None:
    whole = encode("float32", BIG)
    damaged = whole[:120] + bytes([whole[120] ^ 1]) + whole[121:]
    first, second, third = parted.sites["A"].parts(1, BIG, payload=damaged)
    assert only(parted.feed(first), Refuse) == []
    assert only(parted.feed(second), Refuse) == []
    (refusal,) = only(parted.feed(third), Refuse)
    assert refusal.reason.startswith("the payload does not decode: Chunk 0 is not one whole zstd frame")


def test_parts_that_contradict_each_other_are_refused(parted: Bench) -> None:
    first, _, _ = parted.sites["A"].parts(1, BIG)
    _, second, _ = parted.sites["A"].parts(1, BIG, examples=7)
    parted.feed(first)
    (refusal,) = only(parted.feed(second), Refuse)
    assert refusal.reason == "its parts contradict each other"


def test_a_receipt_tells_which_parts_of_an_unfinished_update_are_here(parted: Bench) -> None:
    site = parted.sites["A"]
    first, second, third = site.parts(1, BIG)
    parted.feed(third)
    parted.feed(first)
    (receipt,) = parted.receipts("A", parted.feed(site.hello(3)))[-1:]
    assert receipt.arrived == [(1, bytes([0b101]))]
    parted.feed(second)
    (receipt,) = parted.receipts("A", parted.feed(site.hello(4)))[-1:]
    assert (receipt.through, receipt.arrived) == (1, [])


def test_an_update_that_cannot_be_right_is_refused_at_its_first_part(parted: Bench) -> None:
    parts = parted.sites["A"].parts(1, BIG, task="other")
    assert [len(only(parted.feed(part), Refuse)) for part in parts] == [1, 0, 0]


def test_junk_does_not_queue_up_before_the_receipts_of_others(bench: Bench) -> None:
    junk = [bench.feed(replace(bench.sites["A"].hello(), body=b"junk")) for _ in range(300)]
    told = [one for effects in junk for one in published(effects) if one.routing_key == "fq.fed.refused"]
    assert len(told) == 100
    assert len(bench.journal.query("SELECT id FROM refused")) == 300
    bench.feed(Confirmed(told[0].token))
    again = published(bench.feed(replace(bench.sites["A"].hello(), body=b"junk")))
    assert [one.routing_key for one in again].count("fq.fed.refused") == 1


def test_a_repair_that_the_broker_refuses_is_seen_in_the_status(bench: Bench) -> None:
    bench.feed(Declared("The queue exists with other arguments."))
    assert "other arguments" in (bench.journal.fact("link") or b"").decode()
    bench.feed(Declared(None))
    assert "connected" in (bench.journal.fact("link") or b"").decode()


def test_the_largest_statistics_that_a_hello_may_carry_can_be_announced(bench: Bench) -> None:
    lists = [[1.0] * 32_768] * 3
    announcement = bench.loop._announcement(
        version=0, model_digest=bytes(32), model_codec="float32", offset=0, parts=1, model_bytes=1
    )
    largest = msgspec.structs.replace(announcement, statistics=lists)
    sealed = bench.loop._party.seal(largest, to="A")
    peer = Peer("fed", "aggregator", bench.key.public)
    assert peer.open(sealed, recipients=frozenset({"A"}))[0] == largest
    hello = bench.sites["A"].hello(statistics=[[1.0] * 32_769] * 3)
    effects = bench.feed(hello)
    assert only(effects, Refuse)[0].reason.startswith("The hello breaks its schema")
