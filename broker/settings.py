"""Settings: a TOML file held against a schema, single values overridden by environment variables.

`FEDQUEUE_AGGREGATION__BUFFER_SIZE=3` overrides `buffer_size` in the table `[aggregation]`. Secrets stay out of these
files and off the command line: they live in files of mode 0600 or in the environment.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from broker.errors import UsageError
from broker.files import write_file

PREFIX = "FEDQUEUE_"
T = TypeVar("T", bound=msgspec.Struct)


def load_settings(path: Path, kind: type[T], *, environ: Mapping[str, str] = os.environ) -> T:
    """The settings in `path`; UsageError names the file, the field and what is wrong with it."""
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise UsageError(f"There is no settings file {path}; 'init' makes one.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a readable TOML file: {error}.") from error
    return parse_settings(text, kind, path=path, environ=environ)


def parse_settings(text: str, kind: type[T], *, path: Path, environ: Mapping[str, str] = os.environ) -> T:
    """The settings in `text`, which is or will be in `path`; UsageError as from `load_settings`."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not a readable TOML file: {error}.") from error
    overridden = _override(values, kind, environ)
    try:
        return msgspec.convert(overridden, type=kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {str(error).replace(' - at `$.', ' at `').replace('$', 'the file')}.") from error
    except UsageError as error:  # from a schema's own check of its values
        raise UsageError(f"{path}: {error}") from error


def _override(values: dict[str, Any], kind: type[msgspec.Struct], environ: Mapping[str, str]) -> dict[str, Any]:
    """`values` with every variable of the environment that names a field of `kind`."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            for inner in msgspec.structs.fields(field.type):
                text = environ.get(f"{PREFIX}{field.name}__{inner.name}".upper())
                if text is not None and isinstance(table := merged.setdefault(field.name, {}), dict):
                    table[inner.name] = text
        elif (text := environ.get(f"{PREFIX}{field.name}".upper())) is not None:
            merged[field.name] = text
    return merged


def read_secret(path: Path, variable: str, what: str, *, environ: Mapping[str, str] = os.environ) -> str:
    """A secret from the environment, else from a file that nobody else may read; UsageError says how to give it."""
    if variable in environ:
        return environ[variable]
    if not path.is_file():
        raise UsageError(f"{what} is missing; write it to {path} (mode 0600) or set {variable}.")
    if path.stat().st_mode & 0o077:
        raise UsageError(f"Others can read {path}; run: chmod 600 {path}")
    try:
        return path.read_text().strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} in {path} is not text; write it anew.") from error


def write_secret(path: Path, text: str) -> None:
    """Write a secret with mode 0600, replacing what was there."""
    write_file(path, f"{text}\n".encode(), mode=0o600)


def to_toml(values: Mapping[str, str | float]) -> str:
    """One line of TOML for each value; JSON's strings, numbers and booleans are TOML's, but for one character."""
    lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f")
