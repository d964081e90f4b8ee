"""From requests to a federation that trains, one hospital more and one less, with the commands that people type."""

import json
from pathlib import Path

from broker.accounts import with_login
from broker.errors import LinkRefused, UsageError
from broker.letters import Joined
from broker.node import Node
from broker.settings import write_secret
from broker.topology import SiteNames
from tests.acceptance.administrator import Administrator
from tests.acceptance.commands import fedqueue
from tests.acceptance.federation import TINY, Federation


def typed(*words: object) -> str:
    ended = fedqueue(*words)
    assert ended.returncode == 0, f"{words}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def asked(federation: Federation, site: str) -> Path:
    """A hospital's request."""
    folder = federation.site(site)
    typed("site", "init", folder.path, "--site", site, "--task", TINY, "--option", f"site={ord(site)}")
    return folder.request_file(site)


def found(federation: Federation, node: Node, *requests: Path) -> None:
    words = ["--federation", federation.name, "--broker", node.folder, *requests]
    typed("aggregator", "init", federation.aggregator.path, *words)
    hurry = "[aggregation]\nmax_wait_s = 1.0\n"
    settings = federation.aggregator.settings_file
    text = settings.read_text().replace("[plan]", "presence_s = 0.3\n\n[plan]").replace("max_wait_s = 3600.0", "")
    settings.write_text(text.replace("[aggregation]\n", hurry).replace("steps = 50", "steps = 3"))


def start(federation: Federation, site: str) -> None:
    """`site run --join`, each time."""
    words = ["-m", "site_worker", "run", str(federation.site(site).path), "-v"]
    federation._start(site, [*words, "--join", str(federation.aggregator.join_file(site))])


def trains(federation: Federation, site: str, *, above: int) -> None:
    """Wait until more than so many updates of a site are accepted."""
    federation.eventually(
        f"{site} has more than {above} updates accepted", lambda: federation.site_status(site).accepted > above
    )


def test_requests_become_a_federation_that_one_more_joins_and_one_leaves(
    federation: Federation, node: Node, administrator: Administrator
) -> None:
    found(federation, node, asked(federation, "a"), asked(federation, "b"))
    federation.sites = ["a", "b"]
    federation.start_aggregator()
    for site in federation.sites:
        start(federation, site)
    federation.reaches(2)

    # one more
    typed("aggregator", "add-site", federation.aggregator.path, asked(federation, "c"), "--broker", node.folder)
    federation.sites.append("c")
    start(federation, "c")
    trains(federation, "c", above=1)

    # one less, while everything runs
    removed = federation.processes.pop("b")
    typed("aggregator", "remove-site", federation.aggregator.path, "b", "--broker", node.folder)
    assert removed.wait(30) == LinkRefused.exit_code
    version = federation.status().version
    federation.reaches(version + 3)
    assert {federation.status().sites[position].state for position in (0, 2)} <= {"idle", "training", "behind"}
    gone = federation.status().sites[1]
    assert (gone.site, gone.state, gone.accepted > 0) == ("b", "removed", True)
    assert [administrator.ready(queue) for queue in _queues(federation, "b")] == [None, None, None]
    assert "b#1 " in typed("aggregator", "replay", federation.aggregator.path)
    ended = fedqueue("aggregator", "remove-site", federation.aggregator.path, "b", "--broker", node.folder)
    assert (ended.returncode, "those that are: a, c" in ended.stderr) == (UsageError.exit_code, True)

    # and back, with the key it had
    accepted = federation.site_status("b").accepted
    request = federation.site("b").request_file("b")
    typed("aggregator", "add-site", federation.aggregator.path, request, "--broker", node.folder)
    start(federation, "b")
    trains(federation, "b", above=accepted)
    for name in ("a", "b", "c", "aggregator"):
        assert federation.stop(name) == 0


def _queues(federation: Federation, site: str) -> tuple[str, str, str]:
    names = SiteNames(federation.name, site)
    return names.rounds, names.updates, names.receipts


def test_a_site_is_removed_where_the_aggregator_does_not_run(
    federation: Federation, node: Node, administrator: Administrator
) -> None:
    found(federation, node, asked(federation, "a"), asked(federation, "b"))
    told = typed("aggregator", "remove-site", federation.aggregator.path, "b")
    assert f"delete '{federation.name}.b' at the broker" in told
    assert [administrator.ready(queue) for queue in _queues(federation, "b")] == [None, None, None]
    assert administrator.ready(_queues(federation, "a")[0]) == 0
    assert [site.site for site in federation.status().sites] == ["a"]


def test_what_was_exported_is_what_the_federation_made(federation: Federation, node: Node, tmp_path: Path) -> None:
    found(federation, node, asked(federation, "a"))
    federation.sites = ["a"]
    federation.start_aggregator()
    start(federation, "a")
    federation.reaches(3)
    assert federation.stop("a") == 0
    file = tmp_path / "model.safetensors"
    typed("aggregator", "export", federation.aggregator.path, file, "--version", 2)
    typed("site", "export", file, tmp_path / "model.pt")
    assert "| `a` | 2 | 48 | 0.00 | 100.0% |" in file.with_suffix(".md").read_text()


def test_on_somebody_elses_broker_the_printed_rights_are_enough(
    federation: Federation, node: Node, administrator: Administrator, vhost: str
) -> None:
    printed = json.loads(typed("broker", "rights", federation.name, "a", "--vhost", vhost, "--json"))
    urls = {}
    for account in (f"{federation.name}.aggregator", f"{federation.name}.a"):
        administrator.management.put_user(account, "secret")
        urls[account.rpartition(".")[2]] = node.amqp_url(account, "secret", vhost)
    watcher = f"{federation.name}.aggregator.console"
    administrator.management.put_user(watcher, "secret", tags="monitoring")
    administrator.management._call("POST", "definitions", printed)

    federation.aggregator.path.mkdir()
    write_secret(federation.aggregator.url_file, urls["aggregator"])
    write_secret(federation.aggregator.console_file, with_login(node.management_url, watcher, "secret"))
    request = asked(federation, "a")
    typed("aggregator", "init", federation.aggregator.path, "--federation", federation.name, request)
    assert Joined.read(federation.aggregator.join_file("a")).broker_url == ""
    folder = federation.site("a")
    write_secret(folder.url_file, urls["a"])
    typed("site", "join", folder.path, federation.aggregator.join_file("a"))
    typed("site", "check", folder.path)
    federation.sites = ["a"]
    federation.start_aggregator()
    federation.start_site("a")
    trains(federation, "a", above=0)

    def waiting() -> set[str]:
        console = federation.status().console
        return set(console.waiting) if console is not None else set()

    federation.eventually("the console has told what waits", lambda: waiting() == {"a"})
