"""Why something was refused, as a cause that people know from everywhere else: broker/troubles.py."""

from typing import Final

from broker.messages import WRONG_SIGNATURE
from broker.troubles import CAUSES, Cause

BY_OTHER_ACCOUNT: Final = "It was published by account"


def cause_of(reason: str) -> Cause:
    """Who cannot sign or log in as the site is not the site, as far as anybody can tell; all else is its update."""
    stranger = reason.startswith((WRONG_SIGNATURE, BY_OTHER_ACCOUNT))
    return CAUSES["wrong-key" if stranger else "update-refused"]
