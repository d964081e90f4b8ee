"""`fedqueue broker`: a private RabbitMQ node in a folder (up, status, console, down), and checks of an existing broker.

No secret is taken from the command line, where every user of the machine could read it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import click

from broker.accounts import Management
from broker.checks import check_broker
from broker.commands import run_cli
from broker.errors import UsageError
from broker.install import ensure_rabbitmq
from broker.node import Node
from broker.options import PASSWORD_VARIABLE, default_folder, show_checks
from broker.queues_command import queues
from broker.rabbit_address import Address
from broker.rights import accounts, definitions, rabbitmqctl
from broker.serving import URL_VARIABLE

FOLDER = click.argument("folder", required=False, default=default_folder, type=click.Path(path_type=Path))


@click.group(name="broker")
def cli() -> None:
    """Run a private RabbitMQ broker in a folder, or check an existing one.

    \b
    Example:
      fedqueue broker up
    """


cli.add_command(queues)


@cli.command()
@FOLDER
def up(folder: Path) -> None:
    """Start the broker of FOLDER in the background; it is made if it is new, and left alone if it runs.

    FOLDER is $FEDQUEUE_HOME or ~/.fedqueue/broker unless given.

    \b
    Example:
      fedqueue broker up ./broker
    """
    exists = (folder / "node.json").exists()
    node = Node.open(folder) if exists else Node.create(folder)
    was_running = node.running
    node.start(detached=True)
    click.echo(f"The broker in {node.folder} {'runs already' if was_running else 'is up'} (process {node.pid}).")
    click.echo(f"AMQP      {node.amqp_url()}")
    click.echo(_console_line(node))


@cli.command()
@FOLDER
def console(folder: Path) -> None:
    """Print the address of the broker's console and the login for it.

    \b
    Example:
      fedqueue broker console
    """
    click.echo(_console_line(Node.open(folder)))


@cli.command()
@FOLDER
def down(folder: Path) -> None:
    """Stop the broker of FOLDER; its queues and messages stay on disk.

    \b
    Example:
      fedqueue broker down ./broker
    """
    node = Node.open(folder)
    was_running = node.running
    node.stop()
    click.echo(f"The broker in {node.folder} {'is down' if was_running else 'was not running'}.")


@cli.command()
def install() -> None:
    """Install RabbitMQ: as root with apt, else unpacked in the cache folder of this account.

    \b
    Example:
      fedqueue broker install
    """
    found = ensure_rabbitmq(log=click.echo)
    click.echo(f"RabbitMQ {found.version} is installed: {found.server}")


@cli.command()
@FOLDER
@click.option("--url", help=f"Check the broker at this AMQP address; its password is in ${PASSWORD_VARIABLE}.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Certificate authority of an amqps:// address.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(folder: Path, url: str | None, ca_file: Path | None, as_json: bool) -> int:
    """Show the broker of FOLDER and its queues; or, with --url or $FEDQUEUE_BROKER_URL, check an existing broker.

    Exits with 1 if the broker does not run or a check fails.

    \b
    Examples:
      fedqueue broker status
      FEDQUEUE_BROKER_PASSWORD=... fedqueue broker status --url amqps://admin@broker.example.org/
    """
    asked = _asked(url)
    if asked:
        return show_checks(check_broker(Address.parse(asked, ca_file=ca_file)), as_json=as_json)
    return _show_node(Node.open(folder), as_json=as_json)


@cli.command()
@click.argument("federation")
@click.argument("sites", nargs=-1, metavar="[SITE]...")
@click.option("--vhost", default="/", show_default=True, help="The virtual host of the federation.")
@click.option("--json", "as_json", is_flag=True, help="Print a fragment of RabbitMQ's definitions instead.")
def rights(federation: str, sites: tuple[str, ...], vhost: str, *, as_json: bool) -> None:
    """Print how the operator of an existing broker gives aggregator and SITEs their accounts and rights.

    The lines are for a shell on the broker's machine; rabbitmqctl asks for each password. They may be run again.

    \b
    Examples:
      fedqueue broker rights icu NY MN --vhost fed
      fedqueue broker rights icu NY --json
    """
    wanted = accounts(federation, sites)
    if as_json:
        click.echo(json.dumps(definitions(wanted, vhost=vhost), indent=2))
    else:
        click.echo("\n".join(rabbitmqctl(wanted, vhost=vhost)))


def _console_line(node: Node) -> str:
    return f"console   {node.management_url}   login {node.user} / {node.password}"


def _show_node(node: Node, *, as_json: bool) -> int:
    found = _facts(node)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif not node.running:
        click.echo(f"The broker in {node.folder} does not run: start it with `fedqueue broker up {node.folder}`.")
    else:
        click.echo(f"RabbitMQ {found['version']} runs in {node.folder} (process {node.pid}).")
        click.echo(f"AMQP port {node.amqp_port}, console port {node.management_port}, metrics {node.prometheus_port}")
        click.echo(f"alarms: {', '.join(found['alarms']) or 'none'}")
        _show_queues(found["queues"])
    return 0 if node.running else 1


def _facts(node: Node) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "folder": str(node.folder),
        "running": node.running,
        "ports": {"amqp": node.amqp_port, "management": node.management_port, "prometheus": node.prometheus_port},
    }
    if node.running:
        management = Management(node.management_url, node.user, node.password)
        facts["version"] = management.overview()["rabbitmq_version"]
        facts["alarms"] = management.alarms()
        facts["queues"] = [_queue(queue) for vhost in management.vhosts() for queue in management.queues(vhost)]
    return facts


def _queue(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "vhost": record["vhost"],
        "name": record["name"],
        "ready": record.get("messages_ready", 0),
        "unacked": record.get("messages_unacknowledged", 0),
        "consumers": record.get("consumers", 0),
    }


def _show_queues(queues: list[dict[str, Any]]) -> None:
    if not queues:
        click.echo("no queues")
        return
    width = max(len(f"{queue['vhost']} {queue['name']}") for queue in queues)
    click.echo(f"{'queue':{width}}  {'ready':>8} {'unacked':>8} {'consumers':>9}")
    for queue in queues:
        name = f"{queue['vhost']} {queue['name']}"
        click.echo(f"{name:{width}}  {queue['ready']:>8} {queue['unacked']:>8} {queue['consumers']:>9}")


def _asked(url: str | None) -> str | None:
    """The address to check, its password taken from the environment; None if this is about our own node."""
    if url is None:
        return os.environ.get(URL_VARIABLE)
    parts = urlsplit(url)
    if parts.password is not None:
        raise UsageError(f"A password on the command line is no secret: leave it out and set ${PASSWORD_VARIABLE}.")
    account, _, host = parts.netloc.rpartition("@")
    password = os.environ.get(PASSWORD_VARIABLE)
    if not account or password is None:
        raise UsageError(f"Name the account in --url, as in amqps://ACCOUNT@HOST/VHOST, and set ${PASSWORD_VARIABLE}.")
    return parts._replace(netloc=f"{account}:{quote(password, safe='')}@{host}").geturl()


if __name__ == "__main__":
    sys.exit(run_cli(cli, prog_name="fedqueue broker"))
