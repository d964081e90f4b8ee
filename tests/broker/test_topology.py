"""Names read as hospital and role; rights let a site do its own and nothing more."""

import re

import pytest

from broker.errors import UsageError
from broker.topology import (
    RESERVED,
    Binding,
    SiteNames,
    aggregator_rights,
    checked_name,
    federation_topology,
    site_rights,
)

NY = SiteNames("trial", "NY")
RIGHTS = site_rights("trial", "NY")
AGGREGATOR = aggregator_rights("trial")
((EXCHANGE, KEY_WRITE, KEY_READ),) = RIGHTS.topics


def test_names() -> None:
    assert (NY.rounds, NY.updates, NY.receipts) == ("fq.trial.NY.rounds", "fq.trial.NY.updates", "fq.trial.NY.receipts")
    assert (NY.round_key, NY.update_key, NY.hello_key) == ("round.NY", "update.NY", "hello.NY")


def test_a_site_has_three_queues_and_the_newest_only_where_that_is_enough() -> None:
    topology = NY.topology(max_updates_bytes=1000)
    limits = {queue.name: queue.arguments for queue in topology.queues}
    newest = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "drop-head", "x-delivery-limit": 1_000_000}
    assert limits == {
        NY.rounds: newest,
        NY.receipts: newest,
        NY.updates: {
            "x-queue-type": "quorum",
            "x-max-length-bytes": 1000,
            "x-overflow": "reject-publish",
            "x-delivery-limit": 1_000_000,
        },
    }
    assert set(topology.bindings) == {
        Binding("fq.trial.rounds", NY.rounds, "round.all"),
        Binding("fq.trial.rounds", NY.rounds, "round.NY"),
        Binding("fq.trial.rounds", NY.receipts, "receipt.NY"),
        Binding("fq.trial.updates", NY.updates, "update.NY"),
        Binding("fq.trial.updates", NY.updates, "hello.NY"),
    }


@pytest.mark.parametrize(("most", "segment"), [(4 << 30, 64 << 20), (40 << 20, 10 << 20), (1000, 1 << 20)])
def test_the_stream_is_evicted_by_segments_smaller_than_itself(most: int, segment: int) -> None:
    stream, refused = federation_topology("trial", max_models_bytes=most).queues
    assert stream.name == "fq.trial.models"
    assert stream.arguments == {
        "x-queue-type": "stream",
        "x-max-length-bytes": most,
        "x-stream-max-segment-size-bytes": segment,
    }
    assert refused.name == "fq.trial.refused"


@pytest.mark.parametrize(
    ("pattern", "name", "may"),
    [
        (RIGHTS.configure, "fq.trial.NY.rounds", False),
        (RIGHTS.configure, "anything", False),
        (RIGHTS.write, "fq.trial.updates", True),
        (RIGHTS.write, "fq.trial.rounds", False),
        (RIGHTS.write, "fqxtrial.updates", False),
        (RIGHTS.write, "fq.trial2.updates", False),
        (RIGHTS.write, "amq.default", False),
        (RIGHTS.read, "fq.trial.NY.rounds", True),
        (RIGHTS.read, "fq.trial.NY.receipts", True),
        (RIGHTS.read, "fq.trial.models", True),
        (RIGHTS.read, "fq.trial.NY.updates", False),
        (RIGHTS.read, "fq.trial.NYC.rounds", False),
        (RIGHTS.read, "fq.trial.N.Y.rounds", False),
        (RIGHTS.read, "fq.trial.refused", False),
        (RIGHTS.read, "fq.trial.models2", False),
        (RIGHTS.read, "fq.trial.NY.rounds.old", False),
        (RIGHTS.read, "fq.other.models", False),
        (KEY_WRITE, "update.NY", True),
        (KEY_WRITE, "hello.NY", True),
        (KEY_WRITE, "update.NYC", False),
        (KEY_WRITE, "update.N.Y", False),
        (KEY_WRITE, "receipt.NY", False),
        (KEY_WRITE, "xupdate.NY", False),
        (KEY_READ, "update.NY", False),
        (site_rights("trial", "N-Y").read, "fq.trial.N-Y.rounds", True),
        (site_rights("trial", "N.Y").read, "fq.trial.NxY.rounds", False),
        (AGGREGATOR.configure, "fq.trial.NY.rounds", True),
        (AGGREGATOR.configure, "fq.trial2.NY.rounds", False),
        (AGGREGATOR.write, "fq.trial.rounds", True),
        (AGGREGATOR.write, "amq.default", True),
        (AGGREGATOR.write, "amq.topic", False),
        (AGGREGATOR.read, "fq.trial.NY.updates", True),
        (AGGREGATOR.read, "fq.other.NY.updates", False),
    ],
)
def test_rights(pattern: str, name: str, may: bool) -> None:
    assert (re.search(pattern, name) is not None) is may


def test_topic_rights_are_on_the_updates_exchange() -> None:
    assert EXCHANGE == "fq.trial.updates"


@pytest.mark.parametrize("name", ["NY", "n", "st-mary_2", "0", "a" * 48])
def test_good_names(name: str) -> None:
    assert checked_name(name, "Site") == name


@pytest.mark.parametrize(
    "name", ["", "N.Y", "N Y", "NY\n", "-NY", "_NY", "N/Y", "#", "*", "Zürich", "a" * 49, *RESERVED]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"Site name .* cannot be used"):
        checked_name(name, "Site")


def test_what_names_something_else_is_reserved() -> None:
    """A site called aggregator would have been given the aggregator's account; everyone is a recipient."""
    assert {"aggregator", "everyone", "all", "models", "refused", "rounds", "updates"} == RESERVED
