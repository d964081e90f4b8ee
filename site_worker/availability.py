"""When a hospital lets its worker train: in windows of its own time, so many updates a day, and not while it is paused.

Pure: the clock is an argument. A window is read as "22:00-06:00 Europe/Paris"; its zone's summer time is heeded.
"""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from typing import Final, Self
from zoneinfo import ZoneInfo

from broker.errors import UsageError

WINDOW: Final = re.compile(r"(\d\d?):(\d\d)-(\d\d?):(\d\d) +(\S+)")
PAUSED: Final = "paused at this hospital"


@dataclass(frozen=True)
class Window:
    """From `start` to `end` of the clock in `zone`, over midnight if `end` is the earlier."""

    start: time
    end: time
    zone: tzinfo

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "HH:MM-HH:MM ZONE"; UsageError if it is anything else."""
        try:
            start, end, zone_name = _parts(text)
            zone = ZoneInfo(zone_name)
        except (ValueError, OSError, KeyError) as error:  # KeyError: zoneinfo does not know the zone
            how = "must read HH:MM-HH:MM ZONE, such as 22:00-06:00 Europe/Paris"
            raise UsageError(f"Window {text!r} {how}.") from error
        if start == end:
            raise UsageError(f"Window {text!r} starts when it ends; leave it out to let training go on at any time.")
        return cls(start, end, zone)

    def opens(self, now: float) -> float:
        """The next time after `now` at which it opens."""
        return next_time(self.start, self.zone, now)

    def closes(self, now: float) -> float:
        """The next time after `now` at which it closes."""
        return next_time(self.end, self.zone, now)

    def contains(self, now: float) -> bool:
        """Whether it is open: it closes before it opens again."""
        return self.closes(now) < self.opens(now)


def _parts(text: str) -> tuple[time, time, str]:
    found = WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError(text)
    start_hour, start_minute, end_hour, end_minute = (int(found[group]) for group in range(1, 5))
    end = time() if (end_hour, end_minute) == (24, 0) else time(end_hour, end_minute)
    return time(start_hour, start_minute), end, found[5]


def next_time(wanted: time, zone: tzinfo | None, now: float) -> float:
    """The next time after `now` at which the clock in `zone` (None: this machine's) shows `wanted`."""
    today = datetime.fromtimestamp(now, zone).date()
    days = (today + timedelta(days=ahead) for ahead in range(3))
    moments = (datetime.combine(day, wanted, zone).timestamp() for day in days)
    return next(moment for moment in moments if moment > now)


@dataclass(frozen=True)
class Rest:
    """Why there is no training now, and until when; None: until somebody ends it."""

    reason: str
    until: float | None


class Availability:
    """What the hospital allows. `made` are the times of its newest updates, oldest first; `paused` is as of now."""

    def __init__(
        self,
        windows: Iterable[Window] = (),
        *,
        max_updates_per_day: int = 0,
        made: Iterable[float] = (),
        paused: bool = False,
    ) -> None:
        self._windows = tuple(windows)
        self._zone = self._windows[0].zone if self._windows else None
        self._most = max_updates_per_day
        self._made = deque(made, maxlen=max_updates_per_day)
        self.paused = paused

    def note_update(self, at: float) -> None:
        """An update has been made."""
        self._made.append(at)

    def rest(self, now: float) -> Rest | None:
        """Why there is no training now, None if there may be."""
        if self.paused:
            return Rest(PAUSED, None)
        if self._windows and not any(window.contains(now) for window in self._windows):
            opening = min(window.opens(now) for window in self._windows)
            return Rest(f"outside this hospital's windows until {self._clock(opening)}", opening)
        return self._rest_after_enough(now) if self._most and len(self._made) == self._most else None

    def _rest_after_enough(self, now: float) -> Rest | None:
        midnight = next_time(time(), self._zone, now)
        if next_time(time(), self._zone, self._made[0]) < midnight:
            return None
        made = "1 update" if self._most == 1 else f"{self._most} updates"
        return Rest(f"{made} made today, which is this hospital's limit, until {self._clock(midnight)}", midnight)

    def changes_at(self, now: float) -> float | None:
        """When to ask again at the latest: a rest ends, or a window closes; None if time alone changes nothing."""
        rest = self.rest(now)
        if rest is not None:
            return rest.until
        return max((window.closes(now) for window in self._windows if window.contains(now)), default=None)

    def _clock(self, at: float) -> str:
        return datetime.fromtimestamp(at, self._zone).astimezone(self._zone).strftime("%Y-%m-%d %H:%M %Z")
