"""Many runs at once: as many worker processes as processors, each given the next job when it has done one.

A worker imports torch once and then runs job after job. Stopping ends all workers at once; they keep nothing.
"""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Final

import msgspec

from broker.errors import FedqueueError, UsageError
from deploy.simulation.job import Job, Said
from deploy.simulation.result import Result
from deploy.watching import StoppedError

LOOK_S: Final = 0.1
COMMAND: Final = (sys.executable, "-m", "deploy.simulation.worker")
Told = Callable[[int, float], None]


class SimulationFailed(FedqueueError):
    """A worker ended without a result; what it wrote is on the terminal."""

    exit_code = 1


def run_jobs(
    jobs: Sequence[Job], *, processes: int, stopping: threading.Event, told: Told = lambda _job, _share: None
) -> list[Result]:
    """The results in the order of the jobs. StoppedError if `stopping` was set first."""
    crew = _Crew(jobs, told)
    threads = [threading.Thread(target=crew.work) for _ in range(min(processes, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads) and not stopping.wait(LOOK_S) and crew.error is None:
            pass
    finally:
        crew.end()
        for thread in threads:
            thread.join()
    if stopping.is_set():
        raise StoppedError("stopped")
    if crew.error is not None:
        raise crew.error
    return [crew.results[number] for number in range(len(jobs))]


class _Crew:
    """The jobs that wait, the workers, and what came of it. `work` runs in a thread for each worker."""

    def __init__(self, jobs: Sequence[Job], told: Told) -> None:
        self._waiting: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
        for numbered in enumerate(jobs):
            self._waiting.put(numbered)
        self._told = told
        self._lock = threading.Lock()
        self._workers: list[subprocess.Popen[str]] = []
        self._ended = False
        self.results: dict[int, Result] = {}
        self.error: FedqueueError | None = None

    def work(self) -> None:
        """Start a worker and give it job after job."""
        worker = self._started()
        while worker is not None and not self._ended:
            try:
                number, job = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                self.results[number] = self._done(worker, number, job)
            except (FedqueueError, OSError, msgspec.DecodeError) as error:
                known = error if isinstance(error, FedqueueError) else SimulationFailed(f"A worker failed: {error}.")
                if not self._ended:
                    self.error = known
                return

    def _started(self) -> "subprocess.Popen[str] | None":
        with self._lock:
            if self._ended:
                return None
            worker = subprocess.Popen(  # noqa: S603 - our own module
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for us, who end it
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            self._workers.append(worker)
            return worker

    def _done(self, worker: "subprocess.Popen[str]", number: int, job: Job) -> Result:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(msgspec.json.encode(job).decode() + "\n")
        worker.stdin.flush()
        for line in worker.stdout:
            said = msgspec.json.decode(line, type=Said)
            if said.error:
                raise UsageError(said.error)
            self._told(number, said.share)
            if said.result is not None:
                return said.result
        raise SimulationFailed(f"The simulation of {job.strategy or job.name} with seed {job.seed} ended early.")

    def end(self) -> None:
        """End all workers."""
        with self._lock:
            self._ended = True
            for worker in self._workers:
                worker.kill()
                worker.wait()
                for pipe in (worker.stdin, worker.stdout):
                    assert pipe is not None
                    _closed(pipe)


def _closed(pipe: IO[str]) -> None:
    with suppress(OSError):  # what was not written before it was killed
        pipe.close()
