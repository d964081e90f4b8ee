"""Watching that cannot watch: whatever is wrong with the console, it is one sentence, and the service goes on."""

from collections.abc import Callable

import pytest

from broker.accounts import with_login
from broker.node import Node
from broker.processes import Ports
from broker.settings import write_secret
from deploy.local import SitePlan
from tests.acceptance.administrator import Administrator
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
