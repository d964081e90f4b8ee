"""How far a long transfer is, how fast it goes and how long it will still take, in words that people can read."""

from dataclasses import dataclass, field
from typing import Final

WINDOW_S: Final = 30.0


@dataclass
class Progress:
    """Bytes of a transfer as they come; the rate is that of the last half minute. `done` bytes were there before."""

    total: int
    now: float
    done: int = 0
    _steps: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._steps.append((self.now, self.done))

    def add(self, size: int, *, now: float) -> None:
        """So many bytes more."""
        self.done += size
        self._steps.append((now, self.done))
        while len(self._steps) > 2 and self._steps[1][0] < now - WINDOW_S:
            del self._steps[0]

    def rate(self) -> float:
        """Bytes a second; 0.0 while that is not known."""
        (begin, before), (end, after) = self._steps[0], self._steps[-1]
        return (after - before) / (end - begin) if end > begin else 0.0

    def __str__(self) -> str:
        share = 100 * self.done // self.total if self.total else 100
        text = f"{share} % of {readable_bytes(self.total)}"
        rate = self.rate()
        if not rate or self.done >= self.total:
            return text
        return f"{text}, {readable_bytes(rate)}/s, {readable_s((self.total - self.done) / rate)} left"


def readable_bytes(size: float) -> str:
    """Such as 3.1 GB."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def readable_s(seconds: float) -> str:
    """Such as 40 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
