"""`fedqueue`: one command for broker, aggregator, site and demo. Each is imported only when it is used.

An aggregator host has no torch and a site needs no matplotlib, so nothing here imports them to print a help text.
"""

import importlib
import sys
from typing import Final

import click

from broker.commands import run_cli

COMMANDS: Final = {
    "broker": ("broker.__main__", "cli", "Start, look at and stop a private RabbitMQ, or check an existing one."),
    "aggregator": ("aggregator.__main__", "cli", "Set up a federation, add hospitals, run, export, replay."),
    "site": ("site_worker.__main__", "cli", "The worker at a hospital."),
    "status": ("deploy.status_command", "status", "How everything is: failed or slow, who is away, what to do."),
    "report": ("deploy.report_command", "report", "Write the report of a federation: one HTML file."),
    "local": ("deploy.local_command", "local", "Federate a model over the files of a folder on this machine."),
    "simulate": ("deploy.simulation.command", "simulate", "Compare strategies on a virtual clock, without a hospital."),
    "demo": ("deploy.demo", "demo", "Federate a model over four real clinics on this machine, in a minute."),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.command(cls=_Lazy)
@click.version_option(package_name="fedqueue")
def cli() -> None:
    """Asynchronous federated learning for hospitals over RabbitMQ.

    \b
    Examples:
      fedqueue demo
      fedqueue broker up
      fedqueue site run my-hospital
    """


def main() -> None:
    """Entry point of the console command."""
    sys.exit(run_cli(cli, prog_name="fedqueue"))


if __name__ == "__main__":
    main()
