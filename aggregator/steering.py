"""`fedqueue aggregator pause | resume | stop-after | switch`: what a coordinator decides, also while it runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from aggregator.control import Control, read_control, write_control
from aggregator.journal import Journal
from aggregator.rules import differences, switch
from aggregator.settings import Folder
from broker.errors import UsageError
from broker.folderlock import running_process

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@click.command()
@FOLDER
def pause(folder: Path) -> None:
    """Ask for no more training until 'resume'. Rounds under way are finished, and their updates still count.

    \b
    Example:
      fedqueue aggregator pause agg
    """
    with _deciding(folder) as journal:
        write_control(journal, msgspec.structs.replace(read_control(journal), paused=True))
    click.echo(f"Paused: sites finish the round they are in, then wait. {_when(folder)}")


@click.command()
@FOLDER
def resume(folder: Path) -> None:
    """Ask for training again after 'pause'.

    \b
    Example:
      fedqueue aggregator resume agg
    """
    with _deciding(folder) as journal:
        control = msgspec.structs.replace(read_control(journal), paused=False)
        write_control(journal, control)
        newest = journal.versions()[-1].version
    if not control.asks_for_training(newest, versions=Folder(folder).settings().versions):
        click.echo(f"No longer paused, but training has ended at version {newest}: see 'stop-after'.")
        return
    click.echo(f"Resumed: sites train from the newest version. {_when(folder)}")


@click.command("stop-after")
@FOLDER
@click.argument("version", type=click.IntRange(min=0))
def stop_after(folder: Path, version: int) -> None:
    """End training at VERSION, whatever aggregator.toml says; 0: never. A later VERSION lets an ended run go on.

    \b
    Examples:
      fedqueue aggregator stop-after agg 100
      fedqueue aggregator stop-after agg 0
    """
    with _deciding(folder) as journal:
        write_control(journal, Control(paused=read_control(journal).paused, stop_after=version))
    end = f"Training ends at version {version}." if version else "Training goes on until somebody ends it."
    click.echo(f"{end} {_when(folder)}")


@click.command("switch")
@FOLDER
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
def switch_command(folder: Path, *, dry_run: bool) -> None:
    """Make the versions to come by the [aggregation] that aggregator.toml has now, and journal that it was decided.

    Once updates have been accepted, editing the file alone changes nothing: a strategy is switched by this command.
    What is in the open buffer counts by the new one. Sites notice nothing; a replay makes each version by its own rule.

    \b
    Example:
      fedqueue aggregator switch agg --dry-run
      fedqueue aggregator switch agg
    """
    wanted = Folder(folder).settings().aggregation
    with _deciding(folder) as journal:
        changes = differences(journal, wanted) if dry_run else switch(journal, wanted, at=time.time())
        newest = journal.versions()[-1].version
    for change in changes:
        click.echo(f"{change.option}: {_shown(change.before)} -> {_shown(change.after)}")
    if not changes:
        click.echo("aggregator.toml asks for what is in force already.")
    elif dry_run:
        click.echo("Nothing has been changed.")
    else:
        click.echo(f"In force for the versions after {newest}. {_when(folder)}")


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


@contextmanager
def _deciding(folder: Path) -> Iterator[Journal]:
    """The journal of a federation that has been set up."""
    path = Folder(folder).journal_file
    if not path.is_file():
        raise UsageError(f"There is no {path}; has this folder been initialised?")
    journal = Journal(path)
    try:
        yield journal
    finally:
        journal.close()


def _when(folder: Path) -> str:
    running = running_process(folder) is not None
    return "The aggregator follows within seconds." if running else "The aggregator is not running; it will do so."
