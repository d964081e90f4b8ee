"""What a person meets: exit codes, one sentence instead of a traceback, stopping in order, help with an example."""

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from aggregator.enrolment import add_site
from broker.errors import LinkRefused, UsageError
from broker.identity import PrivateKey
from broker.letters import Request
from broker.processes import Ports
from broker.settings import write_secret
from deploy.cli import cli
from deploy.local import SitePlan
from tests.acceptance.books import settled
from tests.acceptance.commands import fedqueue, module
from tests.acceptance.federation import Federation


def test_a_wrong_password_ends_in_one_sentence(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}), versions=1)
    for name, folder in (("site_worker", federation.site("a")), ("aggregator", federation.aggregator)):
        url = folder.url_file.read_text().strip()
        write_secret(folder.url_file, re.sub(r":[^:@/]+@", ":wrong@", url))
        ended = module(name, "run", folder.path)
        assert ended.returncode == LinkRefused.exit_code
        assert re.fullmatch(
            r"error: The broker at \S+ refuses the login of '\S+': check its password\.\n", ended.stderr
        )


@pytest.mark.parametrize("words", ["site_worker run", "site_worker status", "aggregator run", "aggregator refused"])
def test_a_missing_folder_ends_in_one_sentence(words: str) -> None:
    ended = module(*words.split(), "no-such-folder")
    assert ended.returncode == UsageError.exit_code
    assert re.fullmatch(r"error: .*no-such-folder.*\n", ended.stderr)


def test_a_second_aggregator_on_a_folder_is_told_which_process_holds_it(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}), versions=1)
    federation.start_aggregator()
    federation.eventually("it runs", lambda: federation.status().link == "connected")
    ended = fedqueue("aggregator", "run", federation.aggregator.path)
    assert ended.returncode == UsageError.exit_code
    assert f"process {federation.processes['aggregator'].pid}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert federation.stop("aggregator") == 0


def test_the_run_survives_a_stop_in_the_middle_of_training(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}, step_delay_s=60.0), versions=1)
    federation.start()
    federation.trains("a")
    assert federation.stop("a") == 0
    assert not federation.outbox("a", "SELECT 1 FROM updates")
    federation.hurry("a")
    federation.start_site("a")
    federation.reaches(1)
    assert settled(federation).accepted == 1


def test_an_unreachable_broker_is_waited_for_visibly(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {}), versions=1)
    assert federation.node is not None
    for folder in (federation.aggregator, federation.site("a")):
        url = folder.url_file.read_text().strip()
        write_secret(folder.url_file, url.replace(f":{federation.node.amqp_port}/", f":{Ports.free().amqp}/"))
    federation.start()
    federation.eventually("the aggregator says so", lambda: "does not answer" in federation.status().link)
    federation.eventually("the site says so", lambda: "does not answer" in federation.site_status("a").detail)
    shown = fedqueue("site", "status", federation.site("a").path).stdout
    assert "waiting: The broker at" in shown
    assert [federation.stop(name) for name in ("a", "aggregator")] == [0, 0]


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)
        else:
            yield (*path, name)


def test_every_commands_help_has_an_example() -> None:
    commands = list(_commands(cli))
    assert {("demo",), ("broker", "up"), ("aggregator", "export"), ("site", "run")} <= set(commands)
    for words in commands:
        shown = CliRunner().invoke(cli, [*words, "--help"], prog_name="fedqueue").output
        assert f"fedqueue {' '.join(words)}" in re.split(r"Examples?:\n", shown)[1], shown


def test_adding_a_site_with_a_wrong_key_leaves_the_real_site_its_password(federation: Federation) -> None:
    federation.prepare(SitePlan("a", {"site": 1}), versions=2)
    federation.start_aggregator()
    folder, wrong = federation.aggregator, Request("a", PrivateKey.generate().public.to_text())
    with pytest.raises(UsageError, match="enrolled with another key"):
        add_site(folder, wrong, node=federation.node)
    federation.start_site("a")
    federation.reaches(2)
