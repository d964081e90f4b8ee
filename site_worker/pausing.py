"""`fedqueue site pause | resume`: whether this hospital's worker may train, for its own people to decide.

A paused worker goes on delivering what it has made. The mark is a file in the site's folder, so it outlives restarts.
"""

from pathlib import Path

import click

from broker.errors import StorageError
from broker.folderlock import running_process
from site_worker.settings import Folder

FOLDER = click.argument("folder", type=click.Path(path_type=Path, file_okay=False))


@click.command()
@FOLDER
def pause(folder: Path) -> None:
    """Let the worker of FOLDER train no more until 'resume'. A round under way is halted and kept, to be finished then.

    \b
    Example:
      fedqueue site pause ny
    """
    mark = _place(folder).pause_file
    try:
        mark.touch(mode=0o600)
    except OSError as error:
        raise StorageError(f"{mark} could not be written: {error.strerror}.") from error
    click.echo(f"Paused: no training until 'fedqueue site resume {folder}'. {_when(folder)}")


@click.command()
@FOLDER
def resume(folder: Path) -> None:
    """Let the worker of FOLDER train again after 'pause'; it finishes the round that was halted first.

    \b
    Example:
      fedqueue site resume ny
    """
    mark = _place(folder).pause_file
    try:
        mark.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{mark} could not be removed: {error.strerror}.") from error
    click.echo(f"Resumed. {_when(folder)}")


def _place(folder: Path) -> Folder:
    """The folder of a site that has been set up."""
    place = Folder(folder)
    place.settings()
    return place


def _when(folder: Path) -> str:
    running = running_process(folder) is not None
    return "The worker follows within seconds." if running else "The worker is not running; it will do so."
