"""What a site remembers of its newest update, to choose how to write the next."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Past:
    """Of the newest update: its choice, its backlog, how long its round took; and of the line, bytes a second.

    `bytes_per_s` is None while no update has gone out since this outbox measures.
    """

    choice: str
    backlog: float
    training_s: float = 0.0
    bytes_per_s: float | None = None
