"""The function that a task's spec names, and one sentence for whatever a hospital's own code raises.

`model.py:task` is a function in a file: an absolute path, or one below the site's folder or else the current one. The
file is executed alone; what it imports must be installed or on PYTHONPATH. `hospital.tasks:sepsis` is a function in a
module that can be imported.
"""

import hashlib
import importlib
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Final

from broker.errors import FedqueueError, UsageError
from broker.events import event

log = logging.getLogger(__name__)
LONGEST_SENTENCE: Final = 400


def function_of(spec: str, base: Path | None) -> tuple[Callable[..., object], str]:
    """The function and the file it is in; UsageError says what is wrong. `base` is the site's folder."""
    place, _, name = spec.rpartition(":")
    if not place or (place.startswith(".") and not place.endswith(".py")) or not name:
        raise UsageError(
            f"Task {spec!r} must be written as module:function or file.py:function, such as model.py:task."
        )
    if place.endswith(".py"):
        file = _found(spec, Path(place), base)
        module, source = _executed(file), str(file)
    else:
        module = _imported(spec, place)
        source = module.__file__ or ""
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"Task {spec!r} names no function: {source or place} has no {name!r} that can be called.")
    return function, source


def _found(spec: str, path: Path, base: Path | None) -> Path:
    folders = [Path.cwd()] if base is None else [base.absolute(), Path.cwd()]
    for file in (folder / path for folder in folders):  # an absolute path stays what it is
        if file.is_file():
            return file.resolve()
    looked = f"it is not in {' or '.join(str(folder) for folder in folders)}"
    raise UsageError(
        f"Task {spec!r} names no file: " + (f"there is none at {path}." if path.is_absolute() else f"{looked}.")
    )


def _executed(file: Path) -> ModuleType:
    """The module that a file makes, under a name of its own: two sites may have each their model.py."""
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    found = spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[name] = module
    with telling(str(file)):
        found.loader.exec_module(module)
    return module


def _imported(spec: str, name: str) -> ModuleType:
    try:
        with telling(""):
            return importlib.import_module(name)
    except UsageError as error:
        if isinstance(error.__cause__, ImportError):
            hint = "install it or add its folder to PYTHONPATH"
            raise UsageError(f"Task {spec!r} cannot be imported ({error.__cause__}); {hint}.") from error
        raise


@contextmanager
def telling(source: str, *, heard: str = "task-unusable") -> Iterator[None]:
    """Whatever the hospital's code in `source` raises becomes a UsageError of one sentence with file and line.

    The traceback goes to the log as the event `heard`; this one shows with -v alone.
    """
    try:
        yield
    except FedqueueError:
        raise
    except (Exception, SystemExit) as error:
        event(log, heard, exception=error)
        raise UsageError(_sentence(error, source)) from error


def _sentence(error: BaseException, source: str) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}."
    said = shorten(str(error), LONGEST_SENTENCE)  # torch's own go over many lines
    hint = "; install it on this machine" if isinstance(error, ModuleNotFoundError) else ""
    return f"The task raised {type(error).__name__}: {said}{hint}{_line(error, source)}."


def _line(error: BaseException, source: str) -> str:
    """The line of `source` that was running, whatever it had called; of the innermost file if it is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == source] if source else frames[-1:]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def defined_at(function: Callable[..., object]) -> str:
    """File and line where a function begins, "" if it is not written in Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
