"""RabbitMQ on this machine: finding it, or installing it with or without root.

Without root the Debian packages are unpacked into a cache folder of the user. Erlang's two `erl` launchers have the
path they were built for written into them; it is replaced by the new one, nothing else needs to change.

With root the package is installed, but its system service is not started, now or at boot: it would listen on all
interfaces, and fedqueue runs nodes of its own.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.errors import UsageError

PACKAGE: Final = "rabbitmq-server"
SERVER: Final = "lib/rabbitmq_server-*/sbin/rabbitmq-server"
HOME_VARIABLE: Final = "FEDQUEUE_RABBITMQ_HOME"

Log = Callable[[str], object]


@dataclass(frozen=True)
class Installation:
    """A RabbitMQ that can be run: its server script, the folder of `erl`, epmd, and variables both need."""

    server: Path
    erl_bin: Path
    epmd: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Such as "3.10.8", from the folder's name."""
        return self.server.parent.parent.name.rpartition("-")[2]


def find_rabbitmq() -> Installation | None:
    """The RabbitMQ named by FEDQUEUE_RABBITMQ_HOME, else the system's, else the one unpacked in the cache."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        found = _installation(Path(home).absolute())
        if found is None:
            raise UsageError(f"{HOME_VARIABLE} names {home}, where there is no RabbitMQ with its Erlang.")
        return found
    return _installation(Path("/")) or _installation(cache_folder())


def ensure_rabbitmq(*, log: Log = print, system: bool = True) -> Installation:
    """Find RabbitMQ, or install it: as root with apt, else (or with `system` False) in the user's cache folder."""
    found = find_rabbitmq() if system else _installation(cache_folder())
    if found:
        return found
    if shutil.which("apt-get") is None:
        raise UsageError(f"RabbitMQ cannot be installed without apt: install it and set {HOME_VARIABLE} to its folder.")
    if system and os.geteuid() == 0:
        _install_package(log)
        found = _installation(Path("/"))
    else:
        _unpack(cache_folder(), log)
        found = _installation(cache_folder())
    if found is None:
        raise UsageError(f"The packages held no RabbitMQ: install it by hand and set {HOME_VARIABLE} to its folder.")
    return found


def cache_folder() -> Path:
    """Where RabbitMQ is unpacked without root."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "fedqueue" / "rabbitmq"


def _installation(root: Path) -> Installation | None:
    """RabbitMQ below `root`, unpacked from packages or from RabbitMQ's own archive."""
    servers = [*(root / "usr/lib/rabbitmq").glob(SERVER), *root.glob("sbin/rabbitmq-server")]
    if root == Path("/"):
        servers = [server for server in servers if "rabbitmq_server-" in str(server)]  # not the wrapper in /sbin
    own = root / "usr/lib/erlang/bin/erl"
    erl = str(own) if own.exists() else shutil.which("erl")
    if not servers or not erl:
        return None
    erl_bin = Path(erl).parent
    libraries = [] if root == Path("/") else [str(folder) for folder in root.glob("usr/lib/*-linux-gnu*")]
    env = {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {}
    newest = max(servers, key=lambda server: [int(number) for number in re.findall(r"\d+", server.parent.parent.name)])
    return Installation(newest, erl_bin, erl_bin / "epmd", env)


def _install_package(log: Log) -> None:
    log("Installing RabbitMQ with apt.")
    if Path("/run/systemd/system").is_dir():
        _run(["systemctl", "mask", f"{PACKAGE}.service"])
        log(f"Its system service is masked; `systemctl unmask {PACKAGE}` undoes that.")
    # Without systemd, init scripts are not started in runlevel 1.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", PACKAGE]
    try:
        _run(install, env=env)
    except UsageError:  # the lists of packages are missing or too old
        _run(["apt-get", "update"], env=env)
        _run(install, env=env)


def _unpack(target: Path, log: Log) -> None:
    """Unpack RabbitMQ and its Erlang into `target`, which appears complete or not at all."""
    packages = _needed()
    log(f"Unpacking RabbitMQ and its Erlang, {len(packages)} packages, into {target}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fresh = Path(scratch) / "root"
        _run(["apt-get", "download", *packages], cwd=Path(scratch))
        for archive in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg", "-x", str(archive), str(fresh)])
        for launcher in (fresh / "usr/lib/erlang").glob("**/bin/erl"):
            text = launcher.read_text()
            launcher.write_text(text.replace("ROOTDIR=/usr/lib/erlang", f'ROOTDIR="{target}/usr/lib/erlang"'))
        if not target.exists():  # else another process was faster
            fresh.rename(target)


def _needed() -> list[str]:
    """RabbitMQ, all of its Erlang, and the shared libraries of Erlang that the system lacks."""
    installed = set(_run(["dpkg-query", "-W", "-f", "${Package}\n"]).split())
    needed, ahead = {PACKAGE}, [PACKAGE]
    while ahead:
        package = ahead.pop()
        kinds = ("erlang-",) if package == PACKAGE else ("erlang-", "lib")
        follow = {name for name in _dependencies(package) if name.startswith(kinds)} - needed
        follow -= {name for name in installed if name.startswith("lib")}
        needed |= follow
        ahead += follow
    return sorted(needed)


def _dependencies(package: str) -> Iterable[str]:
    """What a package depends on; of alternatives, which apt marks with a bar, the first."""
    settled = False
    for line in _run(["apt-cache", "depends", "--important", package]).splitlines():
        match = re.fullmatch(r"\s+(\|?)(?:Pre)?Depends: (\S+)", line)
        if match and not settled and not match[2].startswith("<"):
            yield match[2]
        if match:
            settled = match[1] == "|"


def _run(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """The output of a command; UsageError with the last thing it said if it fails."""
    try:
        return subprocess.run(command, env=env, cwd=cwd, check=True, capture_output=True, text=True).stdout  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise UsageError(f"`{' '.join(command[:3])}` failed, so RabbitMQ cannot be installed: {said[-1]}") from error
