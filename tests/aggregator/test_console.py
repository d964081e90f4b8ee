"""What the watcher makes of the management API's counts."""

from pathlib import Path
from typing import cast

import pytest

from aggregator.console import Console, Watcher, console_url, management_at
from broker.accounts import Management
from broker.errors import LinkError, UsageError


class Api:
    """Answers as the management API would."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}
        self.down = False

    def attempts(self) -> dict[str, tuple[int, int]]:
        if self.down:
            raise LinkError("The management API does not answer.")
        return dict(self.counts)

    def waiting_bytes(self, vhost: str) -> dict[str, int]:
        assert vhost == "fed"
        return {"fq.icu.NY.updates": 12, "fq.icu.NY.rounds": 3, "fq.other.MN.updates": 5}

    def alarms(self) -> list[str]:
        return ["disk on x"]


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def watcher(api: Api) -> Watcher:
    return Watcher(cast("Management", api), "icu", "fed")


def test_alarms_and_what_waits_of_this_federation_are_told(watcher: Watcher) -> None:
    assert watcher.look(5.0) == Console(5.0, alarms=("disk on x",), waiting={"NY": 12})


def test_a_login_is_refused_from_its_first_failure_to_its_next_success(api: Api, watcher: Watcher) -> None:
    api.counts = {"icu.NY": (0, 1)}
    assert watcher.look(1.0).refused == {}
    api.counts = {"icu.NY": (1, 1)}
    assert watcher.look(2.0).refused == {"icu.NY": 2.0}
    api.counts = {"icu.NY": (3, 1)}
    assert watcher.look(3.0).refused == {"icu.NY": 2.0}
    api.counts = {"icu.NY": (3, 2)}
    assert watcher.look(4.0).refused == {}


def test_what_was_counted_before_the_first_look_tells_only_of_accounts_that_never_got_in(
    api: Api, watcher: Watcher
) -> None:
    api.counts = {"icu.NY": (7, 2), "icu.MN": (1, 0)}
    assert watcher.look(1.0).refused == {"icu.MN": 1.0}


def test_a_console_that_does_not_answer_is_one_sentence_and_forgets_nothing(api: Api, watcher: Watcher) -> None:
    api.counts = {"icu.NY": (1, 0)}
    watcher.look(1.0)
    api.down = True
    assert watcher.look(2.0) == Console(2.0, error="The management API does not answer.")
    api.down = False
    assert watcher.look(3.0).refused == {"icu.NY": 1.0}


def test_it_survives_the_journal() -> None:
    said = Console(1.0, alarms=("memory on x",), refused={"a": 2.0}, waiting={"NY": 3})
    assert Console.from_bytes(said.to_bytes()) == said


def test_an_address_with_an_account_makes_a_client(tmp_path: Path) -> None:
    assert management_at("http://icu.aggregator.console:p%40ss@host:15672").url == "http://host:15672"
    for wrong in ("amqp://a:b@host", "http://host:15672", "nothing"):
        with pytest.raises(UsageError, match="must read http://ACCOUNT:PASSWORD@HOST:PORT"):
            management_at(wrong)


def test_without_a_file_nobody_is_asked_and_a_readable_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "console.url"
    assert console_url(file) is None
    file.write_text("http://a:b@host:1\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        console_url(file)
    file.chmod(0o600)
    assert console_url(file) == "http://a:b@host:1"
