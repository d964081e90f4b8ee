"""What a site remembers of its newest update, to choose how to write the next."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Past:
    """Of the newest update: its choice and backlog, and how fast the line was, in bytes a second; None unknown."""

    choice: str
    backlog: float
    bytes_per_s: float | None = None
