"""Whether a site has a round that it began and did not finish, and whether it may go on with it."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker.messages import Announcement
from broker.weights import Layout
from site_worker.checkpoint import Facts, Kept, KeptRound, RoundKeeper
from site_worker.descent import State
from site_worker.outbox import read_last_base
from site_worker.settings import Folder, Settings

# Two announcements of one round may differ in where the model lies in the stream and in when they were made.
IDENTITY: Final = ("task", "version", "model_digest", "layout_digest", "plan", "codec", "statistics")
Vector = NDArray[np.float32]


class Unfinished:
    """The kept round of one site's folder. Once its update is in the outbox it is obsolete, `forget` or not."""

    def __init__(self, folder: Folder, settings: Settings, task: str, layout: Layout) -> None:
        self._outbox, self._settings = folder.outbox_file, settings
        self._task, self._layout = task, layout
        self._kept = KeptRound(folder.round_folder, layout)

    def announcement(self) -> Announcement | None:
        """What it was asked for, None if there is none that can be continued; never raises for what is in the files."""
        announcement = self._kept.announcement()
        if announcement is None or self._obsolete(announcement):
            return None
        if (announcement.task, announcement.layout_digest) != (self._task, self._layout.digest):
            self.put_aside("it is of another task or model")
            return None
        return announcement

    def of(self, asked: Announcement) -> Kept | None:
        """The kept round of exactly this announcement; one of another is put aside."""
        kept = self._kept.read()
        if kept is None or self._obsolete(kept.announcement):
            return None
        odd = [name for name in IDENTITY if getattr(kept.announcement, name) != getattr(asked, name)]
        if odd:
            self.put_aside(f"its {odd[0]} is not that of version {asked.version} as it is announced now")
            return None
        settings = (self._settings.seed, self._settings.precision)
        if kept.facts is not None and (kept.facts.seed, kept.facts.precision) != settings:
            self.put_aside("the site's seed or precision has changed")
            return Kept(kept.announcement, kept.base)
        return kept

    def keeper(self, asked: Announcement, base: Vector, facts: Facts, spent_s: Callable[[], float]) -> RoundKeeper:
        """What keeps a round while it trains; `spent_s` is asked for the time that it has taken."""

        def write(state: State) -> None:
            self._kept.write(asked, base, msgspec.structs.replace(facts, spent_s=spent_s()), state)

        return RoundKeeper(write, every_s=self._settings.checkpoint_s)

    def put_aside(self, why: str) -> None:
        """Move it out of the way, and say why in the log."""
        self._kept.put_aside(why)

    def forget(self) -> None:
        """Remove it."""
        self._kept.forget()

    def _obsolete(self, announcement: Announcement) -> bool:
        obsolete = announcement.version <= read_last_base(self._outbox)
        if obsolete:
            self.forget()
        return obsolete
