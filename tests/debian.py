"""A program from a Debian package, unpacked into the user's cache: nothing is installed, and no service starts."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def cache_folder(package: str) -> Path:
    """Where a package is unpacked."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "fedqueue" / package


def find_program(package: str, name: str) -> Path | None:
    """The system's, else that of the package in the cache."""
    found = shutil.which(name)
    unpacked = cache_folder(package) / "usr/bin" / name
    return Path(found) if found else unpacked if unpacked.is_file() else None


def ensure_program(package: str, name: str) -> Path | None:
    """The same; where it is missing the package is fetched first. What it depends on must be data, or there already."""
    if find_program(package, name) is None and shutil.which("apt-get") and shutil.which("dpkg"):
        target = cache_folder(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            _unpack(package, Path(scratch), target)
    return find_program(package, name)


def _unpack(package: str, scratch: Path, target: Path) -> None:
    """Into `target`, which appears complete or not at all."""
    if not _ran(["apt-get", "download", package], scratch) and os.geteuid() == 0:
        _ran(["apt-get", "update", "-qq"], scratch)  # the lists of packages are missing or too old
        _ran(["apt-get", "download", package], scratch)
    for archive in scratch.glob("*.deb"):
        unpacked = scratch / "root"
        if _ran(["dpkg", "-x", str(archive), str(unpacked)], scratch) and not target.exists():
            unpacked.rename(target)


def _ran(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0
