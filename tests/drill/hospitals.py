"""The federation of the drill: three hospitals with metrics on a broker of their own, training until told to stop."""

import io
import json
import re
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aggregator.enrolment import add_site
from broker.accounts import Management
from broker.commands import run_cli
from broker.install import find_rabbitmq
from broker.letters import Request
from broker.settings import write_secret
from deploy.cli import cli
from deploy.local import SitePlan
from site_worker.joining import join
from tests.acceptance.federation import Federation

SITES: Final = ("KY", "MN", "NY")
STEP_S: Final = 0.05
POISON: Final = "tests.acceptance.tasks:poisoned"
FAST: Final = "console_s = 0.5\n"


@dataclass
class Hospitals(Federation):
    """See the module's docstring. `metrics` has the port of each service."""

    metrics: dict[str, int] | None = None

    def come(self) -> None:
        """Set up, start, and wait until every hospital has contributed."""
        self.prepare(*(SitePlan(name, {"site": number}, STEP_S) for number, name in enumerate(SITES)), versions=0)
        ports = dict(zip(("aggregator", *SITES), _free_ports(4), strict=True))
        self.metrics = ports
        settings = self.aggregator.settings_file
        settings.write_text(FAST + settings.read_text() + f"[metrics]\nport = {ports['aggregator']}\n")
        for name in SITES:
            file = self.site(name).settings_file
            file.write_text(f"{file.read_text()}\n[metrics]\nport = {ports[name]}\n")
        self.start()
        self.eventually("all have contributed", lambda: {site.site for site in self._accepted()} == set(SITES))

    def _accepted(self) -> list[Any]:
        return [site for site in self.status().sites if site.accepted]

    @property
    def management(self) -> Management:
        """The administrator's."""
        assert self.node is not None
        return Management(self.node.management_url, self.node.user, self.node.password)

    def rewrite(self, site: str, name: str, value: str) -> None:
        """Change a line of a site's settings."""
        file = self.site(site).settings_file
        text, times = re.subn(rf"^{name} = .*$", f"{name} = {value}", file.read_text(), flags=re.MULTILINE)
        assert times == 1
        file.write_text(text)

    def said(self, *arguments: str | Path) -> tuple[int, Any]:
        """What a command of `fedqueue` says with --json, and its exit code."""
        said = io.StringIO()
        with redirect_stdout(said):
            code = run_cli(cli, [*map(str, arguments), "--json"])
        assert said.getvalue(), arguments
        return code, json.loads(said.getvalue())

    def restart(self, site: str) -> None:
        """Kill a site and start it again."""
        self.kill(site)
        self.start_site(site)

    def give_login(self, site: str) -> None:
        """The remedy for a refused login: a new join file, at the hospital."""
        folder = self.site(site)
        request = Request(site, self._key(site))
        write_secret(self.aggregator.join_file(site), add_site(self.aggregator, request, node=self.node).to_toml())
        join(folder, self.aggregator.join_file(site))

    def _key(self, site: str) -> str:
        return str(self.journal("SELECT public_key FROM sites WHERE site = ?", site)[0][0])

    def control(self, *arguments: str) -> None:
        """rabbitmqctl on the node."""
        rabbitmq = find_rabbitmq()
        assert rabbitmq is not None
        assert self.node is not None
        command = [str(rabbitmq.server.with_name("rabbitmqctl")), "-n", "fedqueue@localhost", *arguments]
        quiet = {"RABBITMQ_CTL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"}
        environment = self.node._environment(rabbitmq) | quiet
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


@contextmanager
def hospitals(path: Path) -> Iterator[Hospitals]:
    """A federation that has come together; nothing of it is left afterwards."""
    made = Hospitals(path, name=f"drill-{secrets.token_hex(2)}")
    try:
        made.start_broker()
        made.come()
        yield made
    finally:
        made.close()


def _free_ports(many: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(many)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
