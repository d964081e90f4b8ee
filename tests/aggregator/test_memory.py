"""What is remembered of sites, and that the journal's rows give the same as the steps did."""

from aggregator.memory import GAPS_KEPT, Contribution, Remembered, recalled, remember


def of(site: str, ordinal: int, examples: int = 1) -> Contribution:
    return Contribution(site, ordinal, 0, examples, 0)


def test_the_newest_update_of_each_site_stays() -> None:
    first = remember({}, [of("A", 1, 10), of("B", 2)], version=1)
    second = remember(first, [of("A", 3, 20)], version=4)
    assert second == {
        "A": Remembered("A", (3,), 20, version=4, gaps=(3,)),
        "B": Remembered("B", (2,), 1, version=1),
    }
    assert first["A"].version == 1


def test_two_of_one_site_in_one_version_are_one_contribution() -> None:
    assert remember({}, [of("A", 1), of("A", 2, 7)], version=3)["A"] == Remembered("A", (1, 2), 7, version=3)


def test_the_usual_gap_is_the_longest_of_the_newest() -> None:
    assert Remembered("A", (1,), 1, 1).usual_gap() is None
    assert Remembered("A", (1,), 1, 1, gaps=(2, 9, 4)).usual_gap() == 9.0
    memory: dict[str, Remembered] = {}
    for number, version in enumerate((1, 3, 4, 6, 9, 13, 18)):
        memory = remember(memory, [of("A", number)], version=version)
    assert memory["A"].gaps == (3, 4, 5)


def test_one_long_absence_makes_no_new_habit() -> None:
    memory = {"A": Remembered("A", (1,), 1, version=10, gaps=(2, 4, 3))}
    assert remember(memory, [of("A", 9)], version=500)["A"].gaps == (4, 3, 12)
    assert len(memory["A"].gaps) == GAPS_KEPT


def test_rows_give_the_memory_that_the_steps_gave() -> None:
    rows = [("A", 1, 1, 10), ("A", 4, 3, 20), ("A", 4, 4, 30), ("B", 1, 2, 1)]
    stepped = remember({}, [of("A", 1, 10), of("B", 2)], version=1)
    stepped = remember(stepped, [of("A", 3, 20), of("A", 4, 30)], version=4)
    assert recalled(rows) == stepped
