"""Updates in several parts, checked part by part as they come: a gigabyte holds nobody up when its last part is in.

What a site's check needs between two parts are a hash, a sum and a position; the bytes are in the journal. So memory
does not grow with the sites that send, and after a restart the check goes through the parts that are there.
"""

from typing import Final

import msgspec

from aggregator.admission import Check, Terms
from aggregator.transfers import Transfers
from broker.errors import RefusedUpdate, StorageError
from broker.messages import UpdatePart

_OF_PARTS: Final = {"part": 0, "settled": 0}  # what may differ between the parts of one update


class Reception:
    """One update on its way in. `parts` are the numbers of those that are here, checked or not."""

    def __init__(self, site: str, update: UpdatePart, transfers: Transfers, terms: Terms) -> None:
        self.form = _form(update)
        self._transfer = transfers.of(site, update.incarnation, update.sequence)
        self.parts: set[int] = set() if self._transfer is None else transfers.parts(self._transfer)
        self._site, self._transfers = site, transfers
        self._newest = -1, b""
        self._check, self._next, self._begun = Check(update, terms), 0, 0
        self._go_on()

    def take(self, part: int, body: bytes) -> bool:
        """A part that was not here yet; whether all are here now. RefusedUpdate if what is checked is wrong."""
        self.parts.add(part)
        if self._transfer is None:
            self._transfer = self._transfers.of(self._site, self.form.incarnation, self.form.sequence)
        self._newest = part, body
        self._go_on()
        self._newest = -1, b""
        return len(self.parts) == self.form.parts

    def finish(self) -> float:
        """The norm of the delta, once all parts are here."""
        return self._check.finish()

    def _go_on(self) -> None:
        """Check what is next, and parts that came before their turn, or before a restart."""
        while self._next in self.parts:
            self._check.feed(self._body(self._next), begun=self._tail(self._begun))
            self._begun = self._check.drop()
            self._next += 1

    def _body(self, part: int) -> bytes:
        """A part; the newest is not in the journal yet."""
        if part == self._newest[0]:
            return self._newest[1]
        body = None if self._transfer is None else self._transfers.part(self._transfer, part)
        if body is None:
            raise StorageError(f"Part {part} of update {self.form.sequence} of {self._site} is gone from the journal.")
        return body

    def _tail(self, size: int) -> bytes:
        """The last bytes that were checked; a chunk may have begun some parts before, where parts are small."""
        tail, part = b"", self._next
        while len(tail) < size:
            part -= 1
            tail = self._body(part)[-(size - len(tail)) :] + tail
        return tail


class Receptions:
    """The updates under way, one a site at the most, as in the journal."""

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._by_site: dict[str, Reception] = {}

    def of(self, site: str, update: UpdatePart, terms: Terms) -> Reception:
        """The one that this part belongs to; RefusedUpdate if it contradicts the parts before it."""
        known = self._by_site.get(site)
        if known is None or (known.form.incarnation, known.form.sequence) != (update.incarnation, update.sequence):
            known = self._by_site[site] = Reception(site, update, self._transfers, terms)
        if known.form != _form(update):
            raise RefusedUpdate("its parts contradict each other")
        return known

    def over(self, site: str) -> None:
        """The site's update is settled, or the site is gone."""
        self._by_site.pop(site, None)


def _form(update: UpdatePart) -> UpdatePart:
    return msgspec.structs.replace(update, **_OF_PARTS)
