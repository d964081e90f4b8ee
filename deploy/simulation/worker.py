"""A process that simulates: one job a line on its standard input, shares done and results as lines on its output.

Values travel as JSON between our own processes, so that the simulator needs no pickle either. Whatever a task prints
goes to the standard error output.
"""

import logging
import os
import sys
import time
from typing import Final, TextIO

import msgspec

from broker.errors import FedqueueError
from deploy.simulation.job import Job, Said
from deploy.simulation.run import simulate

TELL_EVERY_S: Final = 0.3


class _Teller:
    """Says now and then how far the run is."""

    def __init__(self, output: TextIO) -> None:
        self._output, self._said_at = output, 0.0

    def share(self, done: float) -> None:
        now = time.monotonic()
        if now >= self._said_at + TELL_EVERY_S:
            self._said_at = now
            self.say(Said(share=min(done, 1.0)))

    def say(self, said: Said) -> None:
        self._output.write(msgspec.json.encode(said).decode() + "\n")
        self._output.flush()


def main() -> None:
    """Work until the input ends."""
    logging.disable(logging.CRITICAL)  # refusals, restarts and the like are the scenario's, and in the result
    teller = _Teller(os.fdopen(os.dup(1), "w"))
    os.dup2(2, 1)
    for line in sys.stdin:
        job = msgspec.json.decode(line, type=Job)
        try:
            result = simulate(job.scenario, job.name, job.strategy, job.seed, told=teller.share)
            teller.say(Said(1.0, result))
        except FedqueueError as error:
            teller.say(Said(error=str(error)))
        except BrokenPipeError:  # whoever asked is gone
            return


if __name__ == "__main__":
    main()
