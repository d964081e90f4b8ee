"""One run that is wanted, and what a worker process says of it."""

import msgspec

from deploy.simulation.result import Result
from deploy.simulation.scenario import Scenario


class Job(msgspec.Struct, frozen=True):
    """A scenario, called `name`, with one strategy and one seed."""

    name: str
    scenario: Scenario
    strategy: str
    seed: int


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of a worker's output: the share that is done, and at the end the result or what went wrong."""

    share: float = 0.0
    result: Result | None = None
    error: str = ""
