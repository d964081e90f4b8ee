"""A log line in both formats: one event a line, whatever is in it."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from broker.events import Event, Value, speaking_for
from broker.logs import LONGEST_TEXT, LONGEST_TRACEBACK, JsonLines, TextLines

HOSTILE = 'x\n2026-11-24 05:20:44,000 INFO    aggregator.service accepted site="KY"\r\x1b[2K\u2028\x85\x00'
FORGED = '{"event": "accepted"}\n{"event": "accepted", "site": "KY"}'


def record(message: object, *args: object, level: int = logging.INFO, error: Exception | None = None) -> Any:
    raised = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("aggregator.service", level, __file__, 1, message, args, raised)
    made.created, made.msecs = 1_795_497_644.123, 123.0
    return made


def said(name: str, **fields: Value) -> Any:
    return record(Event(name, fields))


def failed(text: str) -> Exception:
    try:
        raise ValueError(text)  # noqa: TRY301 - for its traceback
    except ValueError as error:
        return error


def test_a_line_of_json_has_the_fields_with_their_types() -> None:
    line = JsonLines().format(said("accepted", site="NY", sequence=3, staleness=1, seconds=0.25, codec=None))
    assert json.loads(line) == {
        "at": "2026-11-24T05:20:44.123Z",
        "level": "info",
        "logger": "aggregator.service",
        "event": "accepted",
        "site": "NY",
        "sequence": 3,
        "staleness": 1,
        "seconds": 0.25,
        "codec": None,
    }
    assert list(json.loads(line))[:5] == ["at", "level", "logger", "event", "site"]


def test_a_line_of_text_reads_as_ever() -> None:
    line = TextLines().format(said("accepted", site="NY", sequence=3, staleness=1))
    assert line.endswith(",123 INFO    aggregator.service accepted site=NY sequence=3 staleness=1")


@pytest.mark.parametrize("hostile", [HOSTILE, FORGED])
def test_a_hostile_reason_stays_in_its_line(hostile: str) -> None:
    refusal = said("refused", site="KY", reason=hostile)
    text, line = TextLines().format(refusal), JsonLines().format(refusal)
    assert text.isprintable()
    quoted = text.partition(" reason=")[2]
    assert json.loads(quoted) == hostile
    assert (line.isascii(), line.isprintable()) == (True, True)
    assert json.loads(line)["reason"] == hostile
    assert json.loads(line)["event"] == "refused"


def test_a_library_is_heard_in_the_same_format_on_one_line() -> None:
    warning = record("%s is\nslow", "torch", level=logging.WARNING)
    assert TextLines().format(warning).endswith(" WARNING aggregator.service torch is\\nslow")
    heard = json.loads(JsonLines().format(warning))
    assert (heard["event"], heard["level"], heard["text"]) == ("message", "warning", "torch is\nslow")


def test_what_names_no_site_is_of_the_one_that_is_spoken_for() -> None:
    with speaking_for("NY"):
        assert TextLines().format(said("training", version=3)).endswith(" training site=NY version=3")
        assert TextLines().format(record("slow")).endswith(" slow site=NY")
        assert json.loads(JsonLines().format(said("training", version=3)))["site"] == "NY"
        assert json.loads(JsonLines().format(said("failed", site="KY")))["site"] == "KY"
    assert "site" not in json.loads(JsonLines().format(said("version", version=3)))


def test_an_exception_is_in_the_same_object_and_behind_bars_in_text() -> None:
    raised = record(Event("task-failed", {}), error=failed(HOSTILE))
    line = JsonLines().format(raised)
    assert line.isprintable()
    assert json.loads(line)["exception"].endswith(f"ValueError: {HOSTILE}")
    first, *more = TextLines().format(raised).splitlines()
    assert first.endswith(" task-failed")
    assert len(more) >= 4
    assert all(one.startswith("  | ") and one.isprintable() for one in more)


def test_infinity_is_null_since_json_has_no_word_for_it() -> None:
    line = JsonLines().format(said("stored", seconds=float("inf")))
    assert '"seconds": null' in line


def test_what_is_very_long_is_cut() -> None:
    endless = record(Event("refused", {"reason": "x" * 5000}), error=failed("y" * 50_000))
    line = json.loads(JsonLines().format(endless))
    assert (len(line["reason"]), len(line["exception"])) == (LONGEST_TEXT, LONGEST_TRACEBACK)
    assert "x" * 999 + "…" in TextLines().format(endless)


PROGRAM = """
import logging, sys, threading, warnings
from broker.events import event
from broker.logs import log_to_stderr
log_to_stderr(sys.argv[1], verbose=sys.argv[2] == "verbose")
log = logging.getLogger("fedqueue")
event(log, "accepted", site="NY")
event(log, "refused", site="NY")
logging.getLogger("torch").warning("slow")
logging.getLogger("pika").warning("chatter")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="watch")
thread.start(); thread.join()
raise ValueError("of ours")
"""


def lines(style: str, loud: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, style, loud], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    return ran.stderr.splitlines()


def test_all_that_a_service_says_is_json_even_warnings_and_crashes() -> None:
    heard = [json.loads(line) for line in lines("json", "verbose")]
    assert [one["event"] for one in heard] == [
        "accepted", "refused", "message", "message", "crashed", "crashed",
    ]  # fmt: skip
    assert heard[3]["logger"] == "py.warnings"
    assert "UserWarning: old" in heard[3]["text"]
    assert (heard[4]["thread"], heard[4]["level"]) == ("watch", "critical")
    assert heard[4]["exception"].endswith("ZeroDivisionError: division by zero")
    assert heard[5]["exception"].endswith("ValueError: of ours")


def test_without_verbose_there_are_warnings_only() -> None:
    heard = [json.loads(line)["event"] for line in lines("json", "quiet")]
    assert heard == ["refused", "message", "message", "crashed", "crashed"]


def test_text_has_a_line_an_event_and_tracebacks_behind_bars() -> None:
    heard = [line for line in lines("text", "verbose") if not line.startswith("  | ")]
    assert [line.split()[2:5] for line in heard] == [
        ["INFO", "fedqueue", "accepted"],
        ["WARNING", "fedqueue", "refused"],
        ["WARNING", "torch", "slow"],
        ["WARNING", "py.warnings", "<string>:11:"],
        ["CRITICAL", "broker.logs", "crashed"],
        ["CRITICAL", "broker.logs", "crashed"],
    ]
