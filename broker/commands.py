"""How every command of fedqueue ends: a mistake in one sentence and an exit code, never in a traceback."""

import logging
import sys
from collections.abc import Sequence

import click

from broker.errors import FedqueueError, UsageError
from broker.events import event
from broker.logs import in_json

log = logging.getLogger(__name__)

STOPPED = 130  # what a shell gives for a program that Ctrl-C ended


def run_cli(group: click.Command, argv: Sequence[str] | None = None, *, prog_name: str | None = None) -> int:
    """Run `group` on `argv` (the process's own if None) and return the exit code: `sys.exit(run_cli(cli))`."""
    try:
        result = group.main(args=argv, prog_name=prog_name, standalone_mode=False)
    except FedqueueError as error:
        return _failed(str(error), error.exit_code, error.site)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PermissionError as error:  # a folder of another account; everywhere, since any path may be one
        sentence = f"This account may not use {error.filename}: run as its owner, or have its permissions changed."
        return _failed(sentence, UsageError.exit_code)
    except (KeyboardInterrupt, click.Abort):  # click turns Ctrl-C into Abort
        return _said("stopped", STOPPED)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0


def _failed(reason: str, code: int, site: str | None = None) -> int:
    if in_json():
        event(log, "failed", site=site, reason=reason, code=code)
        return code
    return _said(f"error: {reason}", code)


def _said(text: str, code: int) -> int:
    click.echo(text, err=True)
    return code
