"""`fedqueue broker queues` over a real broker: by whom it may be asked, and what it says to whom it may not."""

import json
import os
from collections.abc import Iterator

import pytest

from broker.node import Node
from broker.options import PASSWORD_VARIABLE
from broker.processes import Ports
from broker.topology import Rights
from deploy.local import SitePlan
from tests.acceptance.administrator import Administrator
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation

WATCHER = "somebody-who-watches"


@pytest.fixture
def watcher(administrator: Administrator) -> Iterator[str]:
    administrator.management.put_user(WATCHER, "secret", tags="monitoring")
    administrator.management.set_rights("/", WATCHER, Rights("^$", "^$", "^$"))
    yield WATCHER
    administrator.management.delete_user(WATCHER)


@pytest.fixture
def refused(federation: Federation, administrator: Administrator) -> Federation:
    """One hospital whose update was refused."""
    federation.prepare(SitePlan("a", {"site": 1}, 0.01), versions=0, buffer_size=1)
    settings = federation.aggregator.settings_file
    settings.write_text(f"{settings.read_text()}\n[limits]\nmax_norm = 1e-9\n")
    federation.start()
    federation.eventually("an update is refused", lambda: bool(federation.journal("SELECT 1 FROM refused")))
    line = f"fq.{federation.name}.refused"
    federation.eventually("the console has its line", lambda: bool(administrator.ready(line)))
    return federation


def ask(url: str, password: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, str, str]:
    monkeypatch.setitem(os.environ, PASSWORD_VARIABLE, password)
    done = fedqueue("broker", "queues", "--url", url, *more)
    return done.returncode, done.stdout, done.stderr


def test_who_may_read_it_sees_the_refusal_and_looking_takes_nothing_away(
    refused: Federation, node: Node, administrator: Administrator
) -> None:
    queue = f"fq.{refused.name}.refused"

    def named() -> set[tuple[str, str]]:
        done = fedqueue("broker", "queues", node.folder, "--json")
        assert done.returncode == 1
        found = json.loads(done.stdout)["federations"][refused.name]["troubles"]
        return {(one["cause"], one["site"]) for one in found}

    refused.eventually("the refusal is named", lambda: ("update-refused", "a") in named())
    refused.kill("a")
    held = administrator.ready(queue)
    named()
    assert administrator.ready(queue) == held


def test_an_account_that_may_only_look_is_told_what_it_cannot_see(
    refused: Federation, node: Node, watcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = node.management_url.replace("http://", f"http://{watcher}@")

    def said() -> str:
        return ask(url, "secret", monkeypatch)[1]

    refused.eventually("what it may not read is a note", lambda: "note  Refusals cannot be told: " in said())
    assert f"federation {refused.name}: 1 hospital," in said()


def test_a_wrong_password_and_a_missing_plugin_are_one_sentence(
    node: Node, watcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = node.management_url.replace("http://", f"http://{watcher}@")
    code, out, err = ask(url, "wrong", monkeypatch)
    assert (code, out) == (3, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    code, out, _ = ask(f"http://{watcher}@127.0.0.1:{Ports.free().management}", "secret", monkeypatch)
    assert code == 1
    assert out.startswith("ACT   broker-down: The broker cannot be reached. (")
    assert "enable its plugin rabbitmq_management" in out


@pytest.mark.parametrize("url", ["http://watch:secret@host:15672", "amqp://watch@host", "http://host:15672"])
def test_an_address_that_cannot_be_used_is_one_sentence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = ask(url, "secret", monkeypatch)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
