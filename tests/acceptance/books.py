"""What must hold after every scenario, whatever was killed or lost: promises 1, 3 and 4 as one check."""

from bisect import bisect_left
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from aggregator.__main__ import cli
from aggregator.journal import Journal
from aggregator.opening import replay
from broker.codecs import decoded
from broker.commands import run_cli
from broker.weights import load_model, model_digest
from deploy.history import Ledger
from tests.acceptance.federation import Federation


def settled(federation: Federation, *, timeout_s: float = 30.0) -> Ledger:
    """Wait until nothing waits anywhere; then nothing is lost or doubled, tau is exact, and the model is the fold."""
    federation.eventually(
        "everything is settled",
        lambda: not federation.waiting() and not federation.status().buffered and _made(federation),
        timeout_s,
    )
    ledger = federation.balance()
    assert (ledger.lost, ledger.doubled, ledger.waiting) == (0, 0, 0), ledger.line
    assert ledger.sent == ledger.accepted + ledger.refused, ledger.line
    _same_answers(federation)
    _exact_staleness(federation)
    _same_bits(federation)
    return ledger


def _made(federation: Federation) -> bool:
    return not federation.journal("SELECT 1 FROM versions WHERE digest = x''")


def _same_answers(federation: Federation) -> None:
    """What a site was told of its update is what the journal says."""
    for site in federation.sites:
        told = {row["sequence"]: row["state"] for row in federation.outbox(site, "SELECT sequence, state FROM updates")}
        accepted = federation.journal("SELECT sequence FROM updates WHERE site = ?", site)
        assert {sequence for sequence, state in told.items() if state == "accepted"} == {row[0] for row in accepted}


def _exact_staleness(federation: Federation) -> None:
    """tau = versions published since the base; the weight is s(tau) = (1 + tau)^-1/2, so 1 for a fresh update."""
    through = [row[0] for row in federation.journal("SELECT through_ordinal FROM versions ORDER BY version")]
    for row in federation.journal("SELECT ordinal, base_version, staleness, weight FROM updates"):
        current = bisect_left(through, row["ordinal"]) - 1
        assert row["staleness"] == current - row["base_version"] >= 0
        assert row["weight"] == (1 + row["staleness"]) ** -0.5


def _same_bits(federation: Federation) -> None:
    """Replay and `export` give the newest version bit for bit, and adding the updates by hand gives its values."""
    file = federation.path / "exported.safetensors"
    with closing(Journal(federation.aggregator.journal_file)) as journal:
        assert all(one.same for one in replay(journal, federation.aggregator))
    assert run_cli(cli, ["export", str(federation.aggregator.path), str(file)]) == 0
    (newest,) = federation.journal("SELECT * FROM versions ORDER BY version DESC LIMIT 1")
    layout, exported = load_model(file)
    assert model_digest(layout.digest, exported) == newest["digest"]
    with closing(Journal(federation.aggregator.journal_file)) as journal:
        np.testing.assert_allclose(exported, _added_by_hand(federation, journal), rtol=1e-4, atol=1e-5)


def _added_by_hand(federation: Federation, journal: Journal) -> NDArray[np.float64]:
    """Version 0 plus, for every version, sum(n_i s(tau_i) delta_i) / sum(n_i) over its updates."""
    _, first = load_model(federation.path / "initial.safetensors")
    model = first.astype(np.float64)
    done = 0
    for version in federation.journal("SELECT through_ordinal FROM versions WHERE version > 0 ORDER BY version"):
        total, examples = np.zeros_like(model), 0
        query = "SELECT * FROM updates WHERE ordinal > ? AND ordinal <= ? ORDER BY ordinal"
        for row in federation.journal(query, done, version[0]):
            payload = journal.payload(row["ordinal"])
            delta = decoded(payload.codec, payload.pieces(0), len(model)).astype(np.float64)
            total += row["examples"] * row["weight"] * delta
            examples += row["examples"]
        model += total / examples
        done = version[0]
    return model
