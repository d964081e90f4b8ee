"""What the operator of a broker is given to apply: the same rights as a private node gives."""

import json
import shlex
from pathlib import Path

import pytest

from broker.__main__ import cli
from broker.accounts import Management
from broker.commands import run_cli
from broker.errors import UsageError
from broker.node import Node
from broker.probes import SiteProbe
from broker.rabbit_address import Address
from broker.rights import accounts, definitions, rabbitmqctl
from broker.serving import declare_topology
from broker.topology import SiteNames, federation_topology


def test_the_lines_for_one_site(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, ["rights", "icu", "NY", "--vhost", "fed"]) == 0
    comment, *lines = capfd.readouterr().out.splitlines()
    assert comment.startswith("# Line by line")
    assert [shlex.split(line) for line in lines] == [
        ["rabbitmqctl", "add_user", "icu.aggregator"],
        ["rabbitmqctl", "set_permissions", "-p", "fed", "icu.aggregator",
         r"^fq\.icu\..*$", r"^(fq\.icu\..*|amq\.default)$", r"^fq\.icu\..*$"],
        ["rabbitmqctl", "add_user", "icu.aggregator.console"],
        ["rabbitmqctl", "set_permissions", "-p", "fed", "icu.aggregator.console", "^$", "^$", "^$"],
        ["rabbitmqctl", "set_user_tags", "icu.aggregator.console", "monitoring"],
        ["rabbitmqctl", "add_user", "icu.NY"],
        ["rabbitmqctl", "set_permissions", "-p", "fed", "icu.NY",
         "^$", r"^fq\.icu\.updates$", r"^fq\.icu\.(NY\.(rounds|receipts)|models)$"],
        ["rabbitmqctl", "set_topic_permissions", "-p", "fed", "icu.NY",
         "fq.icu.updates", r"^(update|hello)\.NY$", "^$"],
    ]  # fmt: skip


def test_the_fragment_says_the_same_and_has_no_users(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, ["rights", "icu", "NY", "--vhost", "fed", "--json"]) == 0
    fragment = json.loads(capfd.readouterr().out)
    assert set(fragment) == {"permissions", "topic_permissions"}
    wanted = accounts("icu", ["NY"])
    told = [shlex.split(line)[3:] for line in rabbitmqctl(wanted, vhost="fed") if "set_permissions" in line]
    assert told == [
        [one["vhost"], one["user"], one["configure"], one["write"], one["read"]] for one in fragment["permissions"]
    ]
    (topic,) = fragment["topic_permissions"]
    assert topic == {
        "user": "icu.NY", "vhost": "fed", "exchange": "fq.icu.updates", "write": r"^(update|hello)\.NY$", "read": "^$",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["i cu"], ["icu", "N.Y"], ["icu", "aggregator"]])
def test_a_name_that_cannot_be_used_is_refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, ["rights", *words]) == UsageError.exit_code
    assert "cannot be used" in capfd.readouterr().err


def test_a_broker_with_the_fragment_lets_a_site_do_its_own_and_nothing_more(
    node: Node, management: Management, vhost: str, tmp_path: Path
) -> None:
    federation = "lungs"
    names = [SiteNames(federation, site).topology() for site in ("north", "south")]
    wanted = accounts(federation, ["north"])
    for account in wanted:
        management.put_user(account, "secret")
    try:
        management._call("POST", "definitions", {**definitions(wanted, vhost=vhost)})
        own = node.amqp_url(f"{federation}.aggregator", "secret", vhost)
        declare_topology(own, federation_topology(federation, max_models_bytes=1 << 20).with_all(names))
        address = Address.parse(node.amqp_url(f"{federation}.north", "secret", vhost))
        probe = SiteProbe(address, SiteNames(federation, "north"))
        checks = list(probe.rights())
        probe.close()
    finally:
        for account in wanted:
            management.delete_user(account)
    assert [check for check in checks if not check.passed] == []
