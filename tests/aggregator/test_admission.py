"""Every reason for which an update is refused, and what a refusal changes: the journal, the receipt, nothing else."""

import json
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zstandard

from aggregator.admission import MAX_LEAP
from aggregator.effects import Accept, Refuse
from aggregator.settings import Limits
from broker.codecs import encode
from broker.drive import Ack
from broker.identity import PrivateKey
from broker.link import Delivery
from broker.messages import Receipt
from tests.aggregator.bench import Bench, floats, only, published
from tests.aggregator.conftest import MakeBench

LIMITS = Limits(max_norm=100.0, max_examples=1000)
ONES = floats(1, 1, 1, 1)


def framed(packed: bytes) -> bytes:
    """A well-formed payload of one chunk with any bytes in it."""
    frame = zstandard.ZstdCompressor(write_checksum=True, write_content_size=True).compress(packed)
    return struct.pack("<I", len(frame)) + frame


def raw(*values: float) -> bytes:
    return encode("float32", floats(*values))


def scaled(scale: float) -> bytes:
    """An int8 payload of [1, 0, 0, 0] times a scale of the sender's choice."""
    return framed(struct.pack("<f", scale) + bytes([1, 0, 0, 0]))


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench(model=floats(3, 3, 3, 3), limits=LIMITS)
    made.start()
    return made


def expect_refused(
    bench: Bench,
    delivery: Delivery,
    reason: str,
    *,
    sequence: int | None,
    site: str = "A",
    cause: str = "update-refused",
) -> None:
    effects = bench.feed(delivery)
    assert not only(effects, Accept)
    (refusal,) = only(effects, Refuse)
    assert (refusal.site, refusal.sequence) == (site, sequence)
    assert reason in refusal.reason
    assert effects.index(refusal) < effects.index(Ack(delivery))
    (copy,) = [one for one in published(effects) if one.routing_key == "fq.fed.refused"]
    line = json.loads(copy.body)
    assert line.pop("cause") == cause
    assert line.pop("at").endswith("Z")
    assert line == {"site": site, "sequence": sequence, "reason": refusal.reason, "bytes": refusal.size}
    rows = bench.journal.query("SELECT site, sequence, reason FROM refused")
    assert [tuple(row) for row in rows] == [(site, sequence, refusal.reason)]
    assert (bench.version, len(bench.fold.buffer), bench.fold.model.tolist()) == (0, 0, [3.0] * 4)
    assert bench.journal.last_ordinal() == 0
    if sequence is not None:
        (receipt,) = bench.receipts(site, effects)
        assert (receipt.through, receipt.refused) == (sequence, [(sequence, refusal.reason)])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "other"}, "task 'other' is not this federation's task 'sepsis'"),
        ({"base_version": 7}, "base version 7 was never published"),
        ({"base_digest": bytes(32)}, "its base is not this federation's version 0"),
        ({"examples": 1001}, "1001 examples are over the limit of 1000"),
        ({"payload_bytes": 10_000}, "10000 bytes are more than 4 parameters can need"),
        ({"parts": 2}, "part 0 of 2 does not fit"),
        ({"part": 1}, "part 1 of 1 does not fit"),
        ({"payload_digest": bytes(32)}, "its parts are not the payload that was signed"),
        ({"payload_bytes": 30}, "its parts are not the payload that was signed"),
        ({"payload": raw(101, 0, 0, 0)}, "norm 101 is over the limit of 100"),
        ({"payload": raw(float("nan"), 0, 0, 0)}, "not finite"),
        ({"payload": raw(0, float("inf"), 0, 0)}, "not finite"),
        ({"payload": raw(0, -float("inf"), float("inf"), 0)}, "not finite"),
        ({"payload": raw(3e38, 3e38, 0, 0)}, "far too large"),
        ({"payload": scaled(float("nan")), "codec": "int8"}, "not finite"),
        ({"payload": scaled(float("inf")), "codec": "int8"}, "not finite"),
        ({"payload": scaled(-3e38), "codec": "int8"}, "far too large"),
        ({"payload": scaled(-200.0), "codec": "int8"}, "norm 200 is over the limit"),
        ({"payload": raw(1, 1, 1)}, "declares 12 bytes where 16 are due"),
        ({"payload": raw(1, 1, 1, 1) + b"more"}, "4 bytes follow the last chunk"),
        ({"payload": b"no payload"}, "does not decode"),
    ],
)
def test_an_update_is_refused_with_its_sequence_and_a_reason(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    expect_refused(bench, bench.sites["A"].update(1, ONES, **changes), reason, sequence=1)


def test_an_unknown_codec_is_refused(bench: Bench) -> None:
    site = bench.sites["A"]
    delivery = site.sealed(site.fields(1, b"x", codec="pickle"), b"x")
    expect_refused(bench, delivery, "codec 'pickle' is unknown here", sequence=1)


def test_what_is_refused_leaves_the_next_update_untouched(bench: Bench) -> None:
    bench.feed(bench.sites["A"].update(1, ONES, task="other"))
    assert only(bench.feed(bench.sites["A"].update(2, ONES)), Accept)
    assert bench.pending.tolist() == [1.0] * 4


def test_an_account_that_is_not_the_sites_is_refused(bench: Bench) -> None:
    for account in ("fed.B", None):
        bench.journal.query("DELETE FROM refused")
        delivery = replace(bench.sites["A"].update(1, ONES), user_id=account)
        expect_refused(
            bench, delivery, f"published by account {account!r}, not by 'fed.A'", sequence=None, cause="wrong-key"
        )


def test_a_site_that_is_not_enrolled_is_refused(bench: Bench) -> None:
    delivery = replace(bench.sites["A"].update(1, ONES), queue="fq.fed.C.updates")
    expect_refused(bench, delivery, "Site C is not enrolled", sequence=None, site="C")


def test_another_key_is_refused(bench: Bench) -> None:
    site = bench.sites["A"]
    forger = replace(site, party=replace(site.party, key=PrivateKey.generate()))
    expect_refused(bench, forger.update(1, ONES), "not by the key enrolled for A", sequence=None, cause="wrong-key")


def test_one_site_cannot_speak_for_another(bench: Bench) -> None:
    delivery = replace(bench.sites["B"].update(1, ONES), queue="fq.fed.A.updates", user_id="fed.A")
    expect_refused(bench, delivery, "not by the key enrolled for A", sequence=None, cause="wrong-key")


def test_a_receipt_from_a_site_is_refused(bench: Bench) -> None:
    site = bench.sites["A"]
    delivery = site.sealed(Receipt(site.incarnation, 5, [], [], 1), b"")
    expect_refused(bench, delivery, "updates and hellos, nothing else", sequence=None)


def test_garbage_is_refused(bench: Bench) -> None:
    delivery = replace(bench.sites["A"].update(1, ONES), body=b"\x80\x04garbage")
    expect_refused(bench, delivery, "not msgpack", sequence=None)


def test_a_leap_of_the_sequence_is_refused_and_settles_nothing(bench: Bench) -> None:
    leap = bench.sites["A"].update(MAX_LEAP + 1, ONES)
    expect_refused(bench, leap, "leaps over 100000 others", sequence=None)
    (receipt,) = bench.receipts("A")
    assert (receipt.through, receipt.beyond) == (0, [])
    assert only(bench.feed(bench.sites["A"].update(MAX_LEAP, ONES)), Accept)


def test_a_refused_update_that_comes_again_is_answered_and_refused_once(bench: Bench) -> None:
    delivery = bench.sites["A"].update(1, ONES, task="other")
    bench.feed(delivery)
    bench.feed(bench.sites["A"].update(1, ONES))  # not even when it is right this time
    assert (len(bench.journal.query("SELECT * FROM refused")), bench.journal.last_ordinal()) == (1, 0)


def test_one_site_alone_in_the_model_of_one_parameter(make_bench: MakeBench) -> None:
    bench = make_bench(model=floats(0), sites=("A",))
    bench.start()
    assert only(bench.feed(bench.sites["A"].update(1, floats(2))), Accept)
    assert bench.fold.model.tolist() == [2.0]


def test_numbers_of_the_sender_are_exact(bench: Bench) -> None:
    (accepted,) = only(bench.feed(bench.sites["A"].update(1, floats(3, 0, 4, 0))), Accept)
    assert (accepted.row.norm, accepted.row.staleness, accepted.row.weight) == (5.0, 0, 1.0)
    assert np.array_equal(bench.pending, floats(3, 0, 4, 0))
