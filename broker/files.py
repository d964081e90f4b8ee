"""A file that is there whole or not at all, whatever happens while it is written; and a folder likewise."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from broker.errors import StorageError, UsageError


@contextmanager
def written_whole(path: Path, *, replace: bool = True, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends, what was written is synced and takes the place of `path`.

    Without `sync`, which is for what is checked when it is read and can be made again, a crash of the machine may leave
    something else there. If the block raises, `path` stays as it was. The folder is made if need be. OSError if the
    disk will not have it; FileExistsError if something is at `path` and must not be replaced.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            make_durable(temporary)
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)  # unlike a rename, a link never takes another file's place
            temporary.unlink()
        if sync:
            make_durable(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def make_durable(path: Path) -> None:
    """Wait until what was written to a file, or the names in a folder, would outlive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int = 0o644, replace: bool = True) -> None:
    """Put `data` at `path`, in a folder that is there; UsageError or StorageError in one sentence if that fails.

    FileExistsError if something is there and must not be replaced.
    """
    _require_name(path)
    if not path.parent.is_dir():
        raise StorageError(f"{path} could not be written: there is no folder {path.parent}.")
    try:
        with written_whole(path, replace=replace) as temporary:
            temporary.unlink(missing_ok=True)  # of a process with our number that was killed
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
    except OSError as error:
        if isinstance(error, FileExistsError) and not replace:
            raise
        raise StorageError(f"{path} could not be written: {error.strerror}.") from error


def require_writable(path: Path) -> None:
    """UsageError if a file could not be written to `path`: to be asked before the work, not after it."""
    _require_name(path)
    if not os.access(path.absolute().parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent} to write to.")


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[None]:
    """Make things in `folder`, which is made for its owner alone if it is new; a failure removes what was added."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = set(folder.iterdir())
    except OSError as error:
        raise StorageError(f"The folder {folder} cannot be used: {error.strerror}.") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in set(folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for one in made:
                one.rmdir()
        raise


def _require_name(path: Path) -> None:
    if not path.name or path.is_dir():
        raise UsageError(f"{path} is a folder; name a file.")
