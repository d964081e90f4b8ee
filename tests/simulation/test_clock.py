"""The virtual clock: order, the present, and stopping."""

from deploy.simulation.clock import Clock


def test_actions_happen_in_the_order_of_their_time_and_of_one_moment_as_they_were_asked_for() -> None:
    clock, done = Clock(), list[tuple[str, float]]()
    for name, time in (("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)):
        clock.at(time, lambda name=name: done.append((name, clock.now)))  # type: ignore[misc]
    clock.run(2.5)
    assert done == [("a", 1.0), ("b1", 2.0), ("b2", 2.0)]
    assert clock.now == 2.5
    clock.run(10.0)
    assert done[3:] == [("c", 3.0)]


def test_what_is_asked_for_in_the_past_happens_now() -> None:
    clock, times = Clock(), list[float]()
    clock.at(5.0, lambda: clock.at(1.0, lambda: times.append(clock.now)))
    clock.run(9.0)
    assert times == [5.0]


def test_a_stopped_clock_stands_still() -> None:
    clock, done = Clock(), list[int]()
    clock.at(1.0, clock.stop)
    clock.after(2.0, lambda: done.append(2))
    clock.run(9.0)
    assert (clock.now, done) == (1.0, [])
