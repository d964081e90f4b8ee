"""Which queues of the in-memory broker take a message: bindings by exchange and key, as a topic exchange has them.

Most keys are plain, so they are looked up; only patterns with wildcards are held against a key one by one.
"""

from broker.topology import Binding


class Routes:
    """All bindings. A queue is named once for a message, however many of its bindings match."""

    def __init__(self) -> None:
        self._plain: dict[tuple[str, str], dict[str, None]] = {}
        self._patterns: dict[Binding, None] = {}

    def bind(self, binding: Binding) -> None:
        """Add a binding; a second time changes nothing."""
        if "*" in binding.key or "#" in binding.key:
            self._patterns[binding] = None
        else:
            self._plain.setdefault((binding.exchange, binding.key), {})[binding.queue] = None

    def unbind(self, queue: str) -> None:
        """Remove all bindings of a queue."""
        for queues in self._plain.values():
            queues.pop(queue, None)
        self._patterns = {binding: None for binding in self._patterns if binding.queue != queue}

    def queues(self, exchange: str, key: str) -> list[str]:
        """Names of the queues that take a message, those bound by the plain key first."""
        found = dict(self._plain.get((exchange, key), {}))
        for binding in self._patterns:
            if binding.exchange == exchange and topic_matches(binding.key, key):
                found[binding.queue] = None
        return list(found)


def topic_matches(pattern: str, key: str) -> bool:
    """Whether a binding's pattern takes a routing key: `*` stands for one word, `#` for any number of words."""
    if "*" not in pattern and "#" not in pattern:
        return pattern == key
    return _words_match(pattern.split("."), key.split("."))


def _words_match(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[start:]) for start in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])
