"""A trial that sets itself up: both sides at once, killed in between, and again."""

from pathlib import Path

import pytest

from aggregator.console import Watcher, management_at
from aggregator.settings import Folder as AggregatorFolder
from broker.accounts import Management
from broker.checks import log_in
from broker.node import Node
from broker.rabbit_address import Address
from deploy.trial import Accounts, ask, found, unanswered
from site_worker.joining import join
from site_worker.settings import Folder

SITES = ("A", "B")


@pytest.fixture
def made(node: Node, management: Management, request: pytest.FixtureRequest) -> Accounts:
    federation = f"trial-{request.node.name[:40].strip('_').replace('_', '-')}"
    return Accounts(management, host=f"127.0.0.1:{node.amqp_port}", federation=federation, sites=SITES)


def set_up(path: Path, made: Accounts) -> None:
    letters = path / "letters"
    for number, site in enumerate(SITES):
        ask(path / site, letters, site, number=number)
    found(AggregatorFolder(path / "agg"), letters, SITES, made)
    for site in SITES:
        join(Folder(path / site), letters / site / f"{site}.join.toml")


def may_log_in(url_file: Path) -> bool:
    connection = log_in(Address.parse(url_file.read_text().strip()), "fedqueue test")
    connection.close()
    return True


def test_it_sets_itself_up_and_is_left_alone_afterwards(tmp_path: Path, made: Accounts) -> None:
    set_up(tmp_path, made)
    urls = [tmp_path / part / "broker.url" for part in ("agg", *SITES)]
    before = [url.read_text() for url in urls]
    assert all(may_log_in(url) for url in urls)
    assert [url.stat().st_mode & 0o777 for url in urls] == [0o600, 0o600, 0o600]
    found_by_watcher = Watcher(management_at((tmp_path / "agg" / "console.url").read_text()), made.federation, "/")
    assert set(found_by_watcher.look(1.0).waiting) == set(SITES)
    set_up(tmp_path, made)
    assert [url.read_text() for url in urls] == before


def test_a_site_whose_answer_was_lost_is_given_a_new_password(tmp_path: Path, made: Accounts) -> None:
    set_up(tmp_path, made)
    letters, site = tmp_path / "letters", tmp_path / "B"
    before = (site / "broker.url").read_text()
    (letters / "B" / "B.join.toml").unlink()
    (site / "join.toml").unlink()
    assert unanswered(letters, SITES) == ["B"]
    set_up(tmp_path, made)
    assert (site / "broker.url").read_text() != before
    assert may_log_in(site / "broker.url")


def test_a_federation_that_people_have_set_up_is_not_answered(tmp_path: Path) -> None:
    assert unanswered(tmp_path / "letters", SITES) == []
