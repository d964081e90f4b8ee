"""The systemd units: what systemd itself says of them, and that they restart what a restart can cure."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from broker.errors import FedqueueError, LinkError, LinkRefused, StorageError, UsageError

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = ("fedqueue-aggregator@.service", "fedqueue-site@.service")
MOST_EXPOSED = 15  # tenths, of 100: systemd calls anything below 20 well sandboxed


@pytest.fixture(scope="module", autouse=True)
def _systemd() -> None:
    """On Debian as root the tool is installed, no service with it; elsewhere these tests are left out."""
    if not shutil.which("systemd-analyze") and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "systemd"]
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(install, env=environ, capture_output=True, check=False)
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")


def analysed(folder: Path, *command: str, name: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says of a unit whose program is one that this machine has."""
    text = (UNITS / name).read_text() if text is None else text
    assert "ExecStart=/opt/fedqueue/bin/fedqueue " in text
    unit = folder / name.replace("@", "@trial")
    unit.write_text(text.replace("/opt/fedqueue/bin/fedqueue", "/bin/true"))
    return subprocess.run(["systemd-analyze", *command, unit], capture_output=True, text=True, check=False)


def of_ours(said: str) -> list[str]:
    return [line for line in said.splitlines() if "fedqueue" in line]


def settings(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault(tmp_path: Path, name: str) -> None:
    found = analysed(tmp_path, "verify", name=name)
    assert (found.returncode, of_ours(found.stderr)) == (0, [])


def test_a_word_that_systemd_does_not_know_is_a_fault(tmp_path: Path) -> None:
    text = (UNITS / NAMES[0]).read_text().replace("ProtectHome=", "ProtectHouse=")
    assert "ProtectHouse" in "".join(of_ours(analysed(tmp_path, "verify", name=NAMES[0], text=text).stderr))


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_well_sandboxed(tmp_path: Path, name: str) -> None:
    found = analysed(tmp_path, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", name=name)
    assert found.returncode == 0, found.stdout[-200:]


def test_a_unit_that_may_do_anything_is_not(tmp_path: Path) -> None:
    text = "[Service]\nExecStart=/opt/fedqueue/bin/fedqueue \n"
    found = analysed(tmp_path, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", name=NAMES[0], text=text)
    assert found.returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_what_no_restart_cures_is_not_restarted(name: str) -> None:
    hopeless: list[type[FedqueueError]] = [UsageError, LinkRefused]
    curable: list[type[FedqueueError]] = [FedqueueError, LinkError, StorageError]
    found = settings(name)
    kept = {int(code) for code in found["RestartPreventExitStatus"][0].split()}
    assert found["Restart"] == ["on-failure"]
    assert kept == {error.exit_code for error in hopeless}
    assert not kept & {error.exit_code for error in curable}


def test_each_role_has_an_account_and_a_folder_of_its_own() -> None:
    accounts = (UNITS / "fedqueue.sysusers.conf").read_text()
    folders = (UNITS / "fedqueue.tmpfiles.conf").read_text()
    for name, role in zip(NAMES, ("aggregator", "site"), strict=True):
        found = settings(name)
        assert found["User"] == found["Group"] == [f"fedqueue-{role}"]
        assert found["StateDirectory"] == [f"fedqueue/{role}/%i"]
        assert found["ExecStart"] == [f"/opt/fedqueue/bin/fedqueue {role} run -v /var/lib/fedqueue/{role}/%i"]
        assert re.search(rf"^u fedqueue-{role} ", accounts, re.MULTILINE)
        assert re.search(rf"^d /var/lib/fedqueue/{role} +0700 fedqueue-{role} +fedqueue-{role}$", folders, re.MULTILINE)
