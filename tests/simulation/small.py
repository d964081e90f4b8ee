"""Scenarios that run in a blink, for the tests."""

from pathlib import Path

from deploy.simulation.result import Result
from deploy.simulation.run import simulate
from deploy.simulation.scenario import Scenario, parse

QUADRATICS = """
title = "small"
codec = "float32"
presence_s = 5.0
probe_s = 20.0
[surrogate]
dimensions = 4
[sites]
number = {sites}
[speeds]
seconds = 1.0
[plan]
steps = 10
learning_rate = 0.1
[aggregation]
buffer_size = 2
weighting = "equal"
max_wait_s = 60.0
[stop]
seconds = {seconds}
"""

LARGER = """
title = "larger"
codec = "auto"
model_codec = "int8"
keyframe_every = 7
[surrogate]
dimensions = 20000
[sites]
number = 2
[links]
up_mbit = {up_mbit}
[plan]
steps = 10
learning_rate = 0.1
[stop]
seconds = 60.0
"""

TROUBLE = """
[faults]
kills_per_hour = 20.0
aggregator_kills_per_hour = 10.0
queue_deletions_per_hour = 10.0
duplicates_per_hour = 60.0
reorderings_per_hour = 60.0
restart_s = 20.0
[links]
latency_s = 0.2
up_mbit = 0.001
down_mbit = 0.002
drops_per_hour = 60.0
down_for_s = 10.0
"""


def quadratics(more: str = "", *, sites: int = 3, seconds: float = 600.0) -> Scenario:
    return parse(QUADRATICS.format(sites=sites, seconds=seconds) + more, Path("small.toml"))


def run(more: str = "", *, sites: int = 3, seconds: float = 600.0, seed: int = 0) -> Result:
    return simulate(quadratics(more, sites=sites, seconds=seconds), "small", "", seed)
