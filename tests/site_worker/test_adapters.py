"""Adapters of a large frozen model: they alone are trained, sent and kept, and nothing of ours knows of them."""

import threading
from pathlib import Path

import numpy as np
import pytest

from broker.codecs import decoded
from site_worker.model import SiteModel, initial_weights
from site_worker.outbox import Outbox, read_local
from site_worker.tasks.task import Task, load_task
from site_worker.training import Stopped
from tests.site_worker.practice import After, announcement, plan, rounds
from tests.site_worker.test_documents import ROOT, block

RANK, WIDTH = 4, 2048
ADAPTERS = {
    "2.down.weight": (RANK, WIDTH),
    "2.up.weight": (WIDTH, RANK),
    "4.down.weight": (RANK, WIDTH),
    "4.up.weight": (1, RANK),
}


@pytest.fixture
def adapted(tmp_path: Path) -> Task:
    """The task of the document, on twenty patients."""
    random = np.random.default_rng(0)
    rows = np.column_stack([random.normal(size=(20, 12)), np.arange(20) % 2])
    np.savetxt(tmp_path / "ward.csv", rows, delimiter=",")
    (tmp_path / "model.py").write_text(block("docs/tasks.md", "## Adapters of a large model", "python"))
    return load_task("model.py:task", {"path": str(tmp_path / "ward.csv")}, base=tmp_path)


def test_adapters_alone_travel(adapted: Task) -> None:
    model = SiteModel(adapted)
    assert sum(one.numel() for one in model.network.parameters()) > 4_200_000
    layout = rounds(None, adapted).layout
    assert {one.name: one.shape for one in layout.tensors} == ADAPTERS
    assert layout.size == 24_580
    assert "24,580 travel" in (ROOT / "docs/tasks.md").read_text()


def test_what_is_kept_of_a_round_is_as_small_as_the_adapters(adapted: Task, tmp_path: Path) -> None:
    local, folder = rounds(tmp_path, adapted), tmp_path / "round"
    model = local.layout.flatten(initial_weights(adapted))
    asked = announcement(local, model, plan=plan(optimizer=1.0), codec="int8")
    outbox = Outbox(tmp_path / "outbox.db")
    with pytest.raises(Stopped):
        local.run(asked, model, outbox.draft(len(model)), After(4))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5 * model.nbytes
    outbox.store(local.run(asked, None, outbox.draft(len(model)), threading.Event()).made.numbered(1))
    assert read_local(tmp_path / "outbox.db") == b""
    sent = local.layout.unflatten(decoded("int8", outbox.part(1, 0) or b"", len(model)))
    assert {name for name, one in sent.items() if np.any(one)} == set(ADAPTERS)
    outbox.close()
    assert (tmp_path / "outbox.db").stat().st_size < 600_000  # the frozen model has 17 million bytes


def test_the_frozen_model_has_the_same_bits_after_a_round(adapted: Task) -> None:
    local = rounds(None, adapted)
    network = local._model.network
    frozen = {name: one.clone() for name, one in network.named_parameters() if not one.requires_grad}
    model = local.layout.flatten(initial_weights(adapted))
    local.learn(announcement(local, model), model, threading.Event())
    live = dict(network.named_parameters())
    assert len(frozen) == 6
    assert all(live[name].equal(one) for name, one in frozen.items())
    assert not np.array_equal(local.layout.flatten(local._model.weights()), model)
