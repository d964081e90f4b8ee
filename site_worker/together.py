"""Several sites in one process: the same loops, each with its own folder, outbox, link and threads.

For many small sites on one machine: importing torch once spares some 200 MB a site. The sites train by turns, because
they share the processor anyway. One site's trouble is its own: it is logged, its status says "failed", and
the others go on.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.errors import FedqueueError
from broker.events import event, speaking_for
from broker.serving import link_maker
from site_worker.gauges import metrics_of
from site_worker.settings import Folder
from site_worker.worker import work

log = logging.getLogger(__name__)

LOOK_S: Final = 0.2


def work_together(folders: Sequence[Path], stopping: threading.Event) -> None:
    """Run the workers of `folders` until `stopping` or until all have ended; then the first site's error is raised."""
    with metrics_of(folders):
        _work_all(folders, stopping)


def _work_all(folders: Sequence[Path], stopping: threading.Event) -> None:
    if len(folders) == 1:
        _work_alone(Folder(folders[0]), stopping, threading.Semaphore())
        return
    turns, trouble = threading.Semaphore(), dict[Path, FedqueueError]()
    ends = {path: threading.Event() for path in folders}

    def run(path: Path) -> None:
        try:
            _work_alone(Folder(path), ends[path], turns)
        except FedqueueError as error:
            trouble[path], site = error, error.site or path.name
            event(log, "failed", site=site, folder=str(path), reason=str(error), code=error.exit_code)

    threads = [threading.Thread(target=run, args=(path,), name=path.name) for path in folders]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not stopping.wait(LOOK_S):
        pass
    for end in ends.values():
        end.set()
    for thread in threads:
        thread.join()
    for path in folders:
        if path in trouble:
            raise trouble[path]


def _work_alone(folder: Folder, stopping: threading.Event, turns: threading.Semaphore) -> None:
    settings = folder.settings()
    name = f"fedqueue {folder.joined().federation} {settings.site}"
    with speaking_for(settings.site):
        work(folder, link_maker(folder.url_file, settings.tls, name=name), stopping, turns=turns)
