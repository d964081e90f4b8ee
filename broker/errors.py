"""Every error fedqueue raises on purpose, and what to do about each.

    FedqueueError
    |-- UsageError       a person's mistake: a wrong setting, a missing file          (exit code 2)
    |-- LinkRefused      the broker said no: password, certificate, permission        (exit code 3, never retried)
    |-- LinkError        the broker is away or busy                                   (retried with backoff)
    |-- StorageError     the disk is full or a file is damaged                        (retried, or exit code 4)
    |-- WireError        a message that is not what the wire format says              (refused, never retried)
    `-- RefusedUpdate    a well-formed update that policy does not admit              (refused, never retried)

The text of an error is one sentence that names what to do; a command prints it and exits with `exit_code`.
"""


class FedqueueError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1
    site: str | None = None  # whose trouble it is, where several sites share a process


class UsageError(FedqueueError):
    """What a person wrote, set or asked for cannot work as it stands."""

    exit_code = 2


class LinkRefused(FedqueueError):
    """The broker refused us for good: wrong password, wrong certificate, missing permission. Do not retry."""

    exit_code = 3


class LinkError(FedqueueError):
    """The broker cannot be reached or is busy. Retry with backoff."""


class StorageError(FedqueueError):
    """A file could not be written or read back. Nothing was lost; free the disk or restore the file, then retry."""

    exit_code = 4


class WireError(FedqueueError):
    """A message breaks the wire format. Reject it, never retry."""


class RefusedUpdate(FedqueueError):
    """An update is well formed but not admitted; the text is the reason its site will read."""
