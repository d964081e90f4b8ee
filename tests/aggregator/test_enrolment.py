"""Founding a federation from requests: who does not fit is named, and what fails leaves nothing behind."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aggregator import enrolment
from aggregator.enrolment import Founding, add_site, create
from aggregator.journal import Journal
from aggregator.settings import Folder
from broker.errors import LinkError, UsageError
from broker.identity import PrivateKey
from broker.letters import Joined, Request
from broker.node import Node
from broker.serving import Tls
from broker.settings import write_secret
from broker.topology import SiteNames, Topology
from broker.weights import Layout, save_model
from tests.aggregator.bench import floats

LAYOUT = Layout.of({"w": floats(0, 0, 0)})
OTHER = Layout.of({"w": floats(0, 0)})
KEY = PrivateKey.generate().public.to_text()
A = Request("A", KEY, "sepsis", LAYOUT.digest.hex(), 3)
B = Request("B", PrivateKey.generate().public.to_text(), "sepsis", LAYOUT.digest.hex(), 3)
TLS = Tls(ca_file="/etc/ca.pem", cert_file="/etc/cert.pem", key_file="/etc/key.pem")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "initial.safetensors"
    save_model(path, LAYOUT, floats(1, 2, 3))
    return path


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Topology, Tls | None]]:
    """What the broker would have been asked to declare, and with which certificate files."""
    asked: list[tuple[Topology, Tls | None]] = []

    def note(_url: str, topology: Topology, *, tls: Tls | None = None) -> None:
        asked.append((topology, tls))

    monkeypatch.setattr(enrolment, "declare_topology", note)
    monkeypatch.setenv("FEDQUEUE_BROKER_URL", "amqps://fed.aggregator@broker.example/")
    return asked


def founded(tmp_path: Path, version_0: Path, /, **changes: Any) -> Folder:
    folder = Folder(tmp_path / "agg")
    create(folder, Founding(**{"federation": "fed", "model": version_0, "requests": [A, B], **changes}), node=None)
    return folder


def test_the_settings_follow_from_the_requests_and_may_be_given(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]]
) -> None:
    settings = founded(tmp_path, model).settings()
    assert (settings.federation, settings.task, settings.start.min_sites) == ("fed", "sepsis", 2)
    given = founded(tmp_path / "given", model, requests=[], task="other", min_sites=5).settings()
    assert (given.task, given.start.min_sites) == ("other", 5)
    assert founded(tmp_path / "none", model, requests=[], task="other").settings().start.min_sites == 1


def test_each_request_is_enrolled_under_the_account_of_its_name_and_gets_a_join_file(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]]
) -> None:
    folder = founded(tmp_path, model)
    with closing(Journal(folder.journal_file)) as journal:
        enrolled = journal.sites()
    assert {site: (one.key, one.account) for site, one in enrolled.items()} == {
        "A": (A.key, "fed.A"), "B": (B.key, "fed.B"),
    }  # fmt: skip
    public = PrivateKey.load(folder.key_file).public.to_text()
    assert Joined.read(folder.join_file("A")) == Joined("fed", "A", "sepsis", public, "", LAYOUT.digest.hex())
    assert folder.join_file("A").stat().st_mode & 0o777 == 0o600
    (topology, _) = declared[0]
    queues = {queue.name for queue in topology.queues}
    assert {SiteNames("fed", "A").updates, SiteNames("fed", "B").rounds, "fq.fed.models", "fq.fed.refused"} <= queues


def test_certificate_files_reach_the_broker_at_init_and_after(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]]
) -> None:
    folder = founded(tmp_path, model, requests=[A], tls=TLS)
    assert folder.settings().tls == TLS
    add_site(folder, B, node=None)
    assert [tls for _, tls in declared] == [TLS, TLS]


OTHER_TASK = msgspec.structs.replace(B, task="other")
OTHER_LAYOUT = msgspec.structs.replace(B, layout_digest=OTHER.digest.hex(), parameters=2)
OTHER_KEY = msgspec.structs.replace(B, site="A")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"requests": [A, OTHER_TASK]}, "Site B runs task 'other', the federation runs 'sepsis'"),
        ({"requests": [A], "task": "other"}, "Site A runs task 'sepsis', the federation runs 'other'"),
        ({"requests": [A, OTHER_LAYOUT]}, r"The model of site B \(2 parameters\) has another layout"),
        ({"requests": [A, OTHER_KEY]}, "Two requests are from site A"),
        ({"requests": []}, "give --task"),
        ({"requests": [Request("C", KEY)]}, "give --task"),
        ({"requests": [], "task": 'a"b'}, "choose a name without quotes"),
        ({"federation": "f ed"}, "Federation name 'f ed' cannot be used"),
        ({"federation": "models"}, "Federation name 'models' cannot be used"),
        ({"model": Path("nowhere")}, "no model file nowhere"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_made(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]], changes: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        founded(tmp_path, model, **changes)
    assert not (tmp_path / "agg").exists()
    assert declared == []


@pytest.mark.parametrize(
    ("request_file", "said"),
    [
        (OTHER_TASK, "Site B runs task 'other'"),
        (OTHER_LAYOUT, "another layout"),
        (OTHER_KEY, "enrolled with another key"),
    ],
)
def test_a_site_that_does_not_fit_is_not_added(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]], request_file: Request, said: str
) -> None:
    folder = founded(tmp_path, model, requests=[A])
    with pytest.raises(UsageError, match=said):
        add_site(folder, request_file, node=None)
    assert len(declared) == 1


def test_an_account_of_another_name_is_the_one_that_is_enrolled(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]]
) -> None:
    folder = founded(tmp_path, model, requests=[A])
    add_site(folder, B, node=None, account="b-acc")
    with closing(Journal(folder.journal_file)) as journal:
        assert {site: one.account for site, one in journal.sites().items()} == {"A": "fed.A", "B": "b-acc"}


@pytest.mark.parametrize("existing", [False, True])
def test_an_init_that_fails_leaves_the_folder_as_it_was_and_can_be_repeated(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    folder = Folder(tmp_path / "agg")
    if existing:
        folder.path.mkdir()
        write_secret(folder.url_file, "amqp://fed.aggregator:secret@broker.example/")
    else:
        monkeypatch.setenv("FEDQUEUE_BROKER_URL", "amqp://fed.aggregator:secret@broker.example/")

    def away(*_: Any, **__: Any) -> None:
        raise LinkError("The broker does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(enrolment, "declare_topology", away)
        with pytest.raises(LinkError):
            founded(tmp_path, model)
    assert [path.name for path in folder.path.glob("*")] == (["broker.url"] if existing else [])
    monkeypatch.setattr(enrolment, "declare_topology", lambda *_, **__: None)
    assert founded(tmp_path, model).settings().federation == "fed"


@pytest.mark.parametrize("step", ["write_file", "_enrol", "declare_topology"])
def test_an_init_that_was_killed_can_be_repeated(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A kill takes nothing back: here that is a folder whose cleaning up is left out."""
    monkeypatch.setenv("FEDQUEUE_BROKER_URL", "amqp://fed.aggregator:secret@broker.example/")
    monkeypatch.setattr(enrolment, "declare_topology", lambda *_, **__: None)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(enrolment, "whole_or_nothing", _nothing_taken_back)
        patch.setattr(enrolment, step, killed)
        with pytest.raises(KeyboardInterrupt):
            founded(tmp_path, model)
    before = PrivateKey.load(tmp_path / "agg" / "aggregator.key").public
    folder = founded(tmp_path, model)
    assert PrivateKey.load(folder.key_file).public == before
    with closing(Journal(folder.journal_file)) as journal:
        assert [row.version for row in journal.versions()] == [0]
        assert set(journal.sites()) == {"A", "B"}


@contextmanager
def _nothing_taken_back(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    yield


def test_a_folder_with_a_federation_is_left_alone(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]]
) -> None:
    folder = founded(tmp_path, model)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="holds a federation already: use 'add-site'"):
        founded(tmp_path, model)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before


def test_a_node_that_does_not_run_is_named_with_its_remedy(tmp_path: Path, model: Path, rabbitmq: None) -> None:
    node = Node.create(tmp_path / "broker")
    with pytest.raises(LinkError, match="does not run: start it with 'fedqueue broker up"):
        create(Folder(tmp_path / "agg"), Founding("fed", model, [A]), node=node)
    assert not (tmp_path / "agg").exists()


def test_a_site_is_not_added_to_a_folder_without_a_journal(
    tmp_path: Path, model: Path, declared: list[tuple[Topology, Tls | None]]
) -> None:
    folder = founded(tmp_path, model, requests=[A])
    folder.journal_file.unlink()
    with pytest.raises(UsageError, match="has this folder been initialised"):
        add_site(folder, B, node=None)
    assert not folder.journal_file.exists()
