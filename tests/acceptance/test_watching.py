"""Watching that cannot watch: whatever is wrong with the console, it is one sentence, and the service goes on."""

import json
from collections.abc import Callable
from functools import partial

import pytest

from broker.accounts import with_login
from broker.node import Node
from broker.processes import Ports
from broker.settings import write_secret
from broker.topology import account_of
from deploy.local import SitePlan
from tests.acceptance.administrator import Administrator
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import Federation

Address = Callable[[Node, Administrator], str]


def _no_plugin(node: Node, _: Administrator) -> str:
    return f"http://any:any@127.0.0.1:{Ports.free().management}"


def _wrong_password(node: Node, _: Administrator) -> str:
    return with_login(node.management_url, node.user, "wrong")


def _no_rights(node: Node, administrator: Administrator) -> str:
    administrator.management.put_user("nobody-special", "any", tags="")
    return with_login(node.management_url, "nobody-special", "any")


BAD: list[tuple[Address, str]] = [
    (_no_plugin, "enable its plugin rabbitmq_management."),
    (_wrong_password, "refuses user 'admin': check name and password."),
    (_no_rights, "refuses user 'nobody-special'"),
    (lambda *_: "amqp://a:b@host", "must read http://ACCOUNT:PASSWORD@HOST:PORT."),
]


@pytest.mark.parametrize(("address", "sentence"), BAD, ids=["plugin", "password", "rights", "address"])
def test_a_console_that_cannot_be_asked_is_one_sentence_and_the_service_goes_on(
    federation: Federation, node: Node, administrator: Administrator, address: Address, sentence: str
) -> None:
    federation.prepare(SitePlan("a", {"site": 1}, 0.01), versions=2, buffer_size=1)
    write_secret(federation.aggregator.console_file, address(node, administrator))
    federation.start()
    federation.reaches(2)

    def told() -> list[str]:
        return [line for line in federation.log("aggregator").splitlines() if "console-silent" in line]

    federation.eventually("the console's trouble is told", lambda: bool(told()))
    (line,) = told()
    assert sentence in line
    assert federation.status().link == "connected"


def test_a_console_that_answers_is_asked_by_an_account_that_may_only_look(
    federation: Federation, administrator: Administrator
) -> None:
    federation.prepare(SitePlan("a", {"site": 1}, 0.01), versions=1, buffer_size=1)
    federation.start()
    federation.reaches(1)
    federation.eventually("the console has answered", lambda: federation.status().console is not None)
    found = federation.status().console
    assert found is not None
    assert (found.error, found.alarms, set(found.waiting)) == (None, (), {"a"})
    assert not [account for account in found.refused if account.startswith(federation.name)]


@pytest.mark.parametrize("who", ["aggregator", "a"])
def test_whose_login_is_refused_ends_and_its_status_says_why_until_it_is_mended(
    federation: Federation, node: Node, who: str
) -> None:
    federation.prepare(SitePlan("a", {"site": 1}, 0.01), versions=0, buffer_size=1)
    place = federation.aggregator if who == "aggregator" else federation.site("a")
    right = place.url_file.read_text()
    account = account_of(federation.name, who)
    write_secret(place.url_file, node.amqp_url(account, "wrong"))
    federation.start()
    assert federation.processes.pop(who).wait(60.0) == 3

    def named() -> list[str]:
        said = fedqueue("status", place.path, "--json").stdout
        return [one["cause"] for one in json.loads(said)[0]["troubles"]]

    assert named() == ["login-refused"]
    write_secret(place.url_file, right.strip())
    (federation.start_aggregator if who == "aggregator" else partial(federation.start_site, "a"))()
    federation.reaches(1)
    assert "login-refused" not in named()
