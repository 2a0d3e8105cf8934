"""Does an executor give back what was asked, in order, whoever did the work?"""

from __future__ import annotations

from hwnas.runs.executor import Executor


def double(item: int) -> int:
    """Stand for an evaluation; a function of a module, so that other processes can find it."""
    return 2 * item


def fail_at_three(item: int) -> int:
    """Fail as an evaluation may."""
    if item == 3:
        raise ValueError("three")
    return item


class ExecutorTests:
    """Tests of an executor; derive from it and override `make`."""

    def make(self) -> Executor:
        """Return the executor to test."""
        raise NotImplementedError("override make() to return the executor that is tested")

    def test_results_come_in_the_order_of_the_items(self) -> None:
        """Also where there are more items than workers, and where items repeat."""
        items = [5, 1, 4, 1, 3, 9, 2, 6, 5, 3, 5]
        assert list(self.make().map(double, items)) == [2 * item for item in items]

    def test_no_items_are_no_work(self) -> None:
        """An empty list gives an empty iterator."""
        assert list(self.make().map(double, [])) == []

    def test_it_can_be_asked_again(self) -> None:
        """An executor serves all generations of a search."""
        executor = self.make()
        assert [list(executor.map(double, [n])) for n in range(4)] == [[0], [2], [4], [6]]

    def test_results_before_a_failure_are_given_and_the_failure_is_raised(self) -> None:
        """What is done is kept by the caller; an error of the function is not hidden."""
        given, raised = [], ""
        try:
            for result in self.make().map(fail_at_three, [1, 2, 3, 4]):
                given.append(result)
        except ValueError as error:
            raised = str(error)
        assert "three" in raised, "the error of the third item was lost"
        assert given == [1, 2]
