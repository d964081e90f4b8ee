"""What more than one command shares on its command line: options, and how checks are shown."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from broker.checks import Check
from broker.logs import FORMATS
from broker.serving import Tls

PASSWORD_VARIABLE: Final = "FEDQUEUE_BROKER_PASSWORD"  # noqa: S105 - the variable's name
Command = TypeVar("Command", bound=Callable[..., Any])
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
TLS_FILES: Final = {
    "ca_file": "Certificate authority of an amqps:// address; default the system's.",
    "cert_file": "Client certificate for an amqps:// address.",
    "key_file": "Its private key.",
}


def default_folder() -> Path:
    """Of a private broker: FEDQUEUE_HOME, else ~/.fedqueue/broker."""
    return Path(os.environ.get("FEDQUEUE_HOME") or Path.home() / ".fedqueue" / "broker")


def tls_options(command: Command) -> Command:
    """The options --ca-file, --cert-file and --key-file; `tls_of` takes what they give."""
    for name, text in reversed(TLS_FILES.items()):
        option = click.option(f"--{name.replace('_', '-')}", type=click.Path(path_type=Path), help=text)
        command = option(command)
    return command


def tls_of(**files: Path | None) -> Tls:
    """Table `[tls]` of a settings file, with paths that hold wherever the service is started."""
    return Tls(**{name: str(path.absolute()) if path else "" for name, path in files.items()})


def log_options(command: Command) -> Command:
    """The options --verbose and --log of a service: `verbose` and `log_style`, for `log_to_stderr`."""
    style = click.option(
        "--log", "log_style", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, envvar="FEDQUEUE_LOG",
        help="Lines for people or, one JSON object each, for programs; also set by FEDQUEUE_LOG.",
    )  # fmt: skip
    return click.option("--verbose", "-v", is_flag=True, help="Log every event, one line each.")(style(command))


def show_checks(checks: Iterable[Check], *, as_json: bool) -> int:
    """Print one line a check, as it comes; the exit code, 1 if one failed."""
    seen = []
    for check in checks:
        seen.append(check)
        if not as_json:
            click.echo(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in seen], indent=2))
    return 0 if all(check.passed for check in seen) else 1
