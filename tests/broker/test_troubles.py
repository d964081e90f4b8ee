"""The table of causes, and how a trouble reads."""

import pytest

from broker.troubles import CAUSES, Cause, Trouble, must_act


@pytest.mark.parametrize("cause", CAUSES.values(), ids=list(CAUSES))
def test_every_cause_says_what_it_means_and_what_to_do_in_whole_sentences(cause: Cause) -> None:
    assert CAUSES[cause.name] is cause
    for sentence in (cause.means, cause.remedy):
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_a_trouble_reads_what_since_when_why_and_what_to_do() -> None:
    away = Trouble(CAUSES["site-away"], "KY", "its newest update is from version 3.", since=1000.0)
    first, second = away.lines(1300.0)
    means = "A site's worker is not connected: it was stopped or killed, or its network is down."
    assert first == f"ACT   site-away KY, for 5 min: {means} (its newest update is from version 3)"
    assert second == f"      do: {CAUSES['site-away'].remedy}"


def test_what_a_site_wrote_does_not_act_on_the_terminal() -> None:
    hostile = Trouble(CAUSES["update-refused"], "KY", "\x1b[2J\nACT   all is well\u202e")
    first, second = hostile.lines(0.0)
    assert first.endswith(r"(\u001b[2J\nACT   all is well\u202e)")
    assert first.isprintable()
    assert second.startswith("      do: ")


def test_what_is_only_worth_knowing_is_marked_so() -> None:
    slow = Trouble(CAUSES["site-slow"], "KY")
    assert slow.lines(0.0)[0].startswith("know  site-slow KY: A site's rounds take")
    assert not must_act([slow])
    assert must_act([slow, Trouble(CAUSES["aggregator-down"])])


def test_for_programs_a_trouble_has_all_of_its_cause() -> None:
    assert Trouble(CAUSES["disk-full"], "NY", "disk full on /srv", since=5.0).to_wire() == {
        "cause": "disk-full",
        "means": CAUSES["disk-full"].means,
        "remedy": CAUSES["disk-full"].remedy,
        "act": True,
        "site": "NY",
        "detail": "disk full on /srv",
        "since": 5.0,
    }
