"""Tests the order, the errors and the end of runs of items that several threads read."""

from __future__ import annotations

import itertools
import threading

import pytest

from batchmax.sources.concurrent_readers import ITEMS_AHEAD, RunEnd, in_order


class Reading:
    """Runs of items that are read by several readers, and what happened to them.

    ``runs`` has the items of each run; an exception among them is raised. If ``slow`` is the number of a run, it is
    read only when ``go`` is set.
    """

    def __init__(self, runs, readers, slow=None):
        self.runs, self.readers, self.slow = runs, readers, slow
        self.go = threading.Event()
        self.read, self.closed = [], []

    def items(self):
        """Return the items in order."""
        return in_order([self._reader(first) for first in range(self.readers)])

    def _reader(self, first):
        try:
            for number in range(first, len(self.runs), self.readers):
                yield self._run(number)
        finally:
            self.closed.append(first)

    def _run(self, number):
        if number == self.slow:
            assert self.go.wait(60)
        for item in self.runs[number]:
            if isinstance(item, BaseException):
                raise item
            self.read.append(item)
            yield item
        return f"end of {number}"


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not reading_threads()


def taken_until_error(items):
    """Return the items and the error that a generator raises after them."""
    found = []
    while True:
        try:
            found.append(next(items))
        except (ValueError, OSError) as error:
            return found, error


RUNS = [[0, 1, 2], [3], [], [4, 5, 6, 7, 8], [9], [10, 11], []]


@pytest.mark.parametrize("n_runs", [0, 1, 2, 7])
@pytest.mark.parametrize("readers", [1, 2, 3, 5, 9])
def test_items_are_in_the_order_of_their_runs(readers, n_runs):
    """Any number of readers gives the items and the results of the runs in order, and all readers are closed."""
    reading = Reading(RUNS[:n_runs], readers)
    found = list(reading.items())
    expected = [[*run, RunEnd(f"end of {number}")] for number, run in enumerate(RUNS[:n_runs])]
    assert found == list(itertools.chain.from_iterable(expected))
    assert sorted(reading.closed) == list(range(readers))


def test_later_runs_are_read_while_the_first_is_waited_for():
    """Readers read ahead up to a number of items each, also items of later runs, whatever the first one does."""
    reading = Reading([["slow"], [1], [2], ["later"], [3], [4, 5, 6]], 3, slow=0)
    items = reading.items()
    result = []
    taker = threading.Thread(target=lambda: result.append(next(items)))
    taker.start()
    while len(reading.read) < 2 * ITEMS_AHEAD:
        assert taker.is_alive()
    assert sorted(reading.read) == [1, 2, 3, 4]
    reading.go.set()
    taker.join()
    assert result == ["slow"]
    assert [item for item in items if not isinstance(item, RunEnd)] == [1, 2, "later", 3, 4, 5, 6]


@pytest.mark.parametrize("slow", [None, 1])
def test_the_error_of_the_earliest_run_is_raised(slow):
    """Errors of later runs, even if they happen earlier, don't hide items and errors of earlier runs."""
    reading = Reading([[1, 2], [3, ValueError("first")], [OSError("second")], [4]], 3, slow)
    threading.Timer(0.05, reading.go.set).start()
    found, error = taken_until_error(reading.items())
    assert (type(error), str(error)) == (ValueError, "first")
    assert found == [1, 2, RunEnd("end of 0"), 3]
    assert sorted(reading.closed) == [0, 1, 2]


def test_an_error_of_closing_a_reader_is_raised():
    """An error after the last run of a reader isn't lost, although another reader ends first."""

    def reader(error=None):
        yield (one for one in [1])
        if error is not None:
            raise error

    found, error = taken_until_error(in_order([reader(), reader(), reader(OSError("changed"))]))
    assert found == [1, RunEnd(None)] * 3
    assert isinstance(error, OSError)


@pytest.mark.parametrize("n_taken", [1, 2, 4])
def test_closing_ends_the_readers(n_taken):
    """After a generator is closed early, readers that wait for room are closed and read no further."""
    reading = Reading([list(range(start, start + 100)) for start in range(0, 1000, 100)], 4)
    items = reading.items()
    taken = [next(items) for _ in range(n_taken)]
    items.close()
    assert taken == list(range(n_taken))
    assert sorted(reading.closed) == [0, 1, 2, 3]
    assert len(reading.read) <= n_taken + 4 * ITEMS_AHEAD


def test_a_generator_that_is_never_used_starts_no_thread():
    """Threads start with the first item."""
    items = Reading(RUNS, 2).items()
    assert not reading_threads()
    items.close()
