"""The faults of the drill: how each is made, which cause all places must name for it, and the remedy of the runbook."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.identity import PrivateKey
from tests.acceptance.administrator import Administrator
from tests.acceptance.federation import TINY
from tests.drill.hospitals import POISON, STEP_S, Hospitals

Step = Callable[[Hospitals], object]


@dataclass(frozen=True)
class Drill:
    """`site` is "" where the federation has the trouble."""

    cause: str
    site: str
    make: Step
    mend: Step


def _slow(hospitals: Hospitals) -> None:
    hospitals.rewrite("KY", "step_delay_s", str(20 * STEP_S))
    hospitals.restart("KY")


def _fast(hospitals: Hospitals) -> None:
    hospitals.rewrite("KY", "step_delay_s", str(STEP_S))
    hospitals.restart("KY")


def _aside(path: Path) -> Path:
    return path.with_suffix(".aside")


def _wrong_key(hospitals: Hospitals) -> None:
    hospitals.kill("KY")
    key = hospitals.site("KY").key_file
    key.rename(_aside(key))
    PrivateKey.load_or_make(key)
    hospitals.start_site("KY")


def _right_key(hospitals: Hospitals) -> None:
    hospitals.kill("KY")
    key = hospitals.site("KY").key_file
    _aside(key).replace(key)
    hospitals.start_site("KY")


def _task(name: str) -> Step:
    def change(hospitals: Hospitals) -> None:
        hospitals.rewrite("KY", "task", f'"{name}"')
        hospitals.restart("KY")

    return change


def _broker(*, up: bool) -> Step:
    def change(hospitals: Hospitals) -> None:
        assert hospitals.node is not None
        if up:
            hospitals.node.start()
        else:
            hospitals.node.kill()

    return change


def _delete(hospitals: Hospitals) -> None:
    assert hospitals.node is not None
    Administrator(hospitals.node).delete(hospitals.names("KY").rounds)


def _wrong_password(hospitals: Hospitals) -> None:
    hospitals.expendable.add("KY")
    hospitals.management.put_user(f"{hospitals.name}.KY", "another")
    hospitals.restart("KY")


def _right_password(hospitals: Hospitals) -> None:
    hospitals.processes.pop("KY").wait()
    hospitals.expendable.discard("KY")
    hospitals.give_login("KY")
    hospitals.start_site("KY")


DRILLS: Final[Mapping[str, Drill]] = {
    "a queue is deleted": Drill("queue-missing", "KY", _delete, lambda _: None),
    "a site is killed": Drill("site-away", "KY", lambda one: one.kill("KY"), lambda one: one.start_site("KY")),
    "a site is paused": Drill(
        "site-resting",
        "KY",
        lambda one: one.site("KY").pause_file.touch(),
        lambda one: one.site("KY").pause_file.unlink(),
    ),
    "a site is 20 times slower": Drill("site-slow", "KY", _slow, _fast),
    "a site has the wrong key": Drill("wrong-key", "KY", _wrong_key, _right_key),
    "a site sends a poisoned update": Drill("update-refused", "KY", _task(POISON), _task(TINY)),
    "a site's password is wrong": Drill("login-refused", "KY", _wrong_password, _right_password),
    "the aggregator is killed": Drill(
        "aggregator-down", "", lambda one: one.kill("aggregator"), lambda one: one.start_aggregator()
    ),
    "the broker's disk is full": Drill(
        "broker-alarm",
        "",
        lambda one: one.control("set_disk_free_limit", "900GB"),
        lambda one: one.control("set_disk_free_limit", "200MB"),
    ),
    "the broker is down": Drill("broker-down", "", _broker(up=False), _broker(up=True)),
}
