"""The order of training: a permutation an epoch, a pure function of (seed, position), and one that never moves."""

import pytest

from unclip.data.order import Order
from unclip.seeds import mix


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 17, 100, 1000, 4072])
def test_each_epoch_is_a_permutation(n):
    order = Order(n, seed=5)
    for epoch in range(3):
        assert sorted(order(epoch * n + position) for position in range(n)) == list(range(n))


def test_epochs_and_seeds_differ():
    orders = [[Order(50, seed)(epoch * 50 + position) for position in range(50)] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_first_positions_are_spread_evenly():
    """Over many seeds, position 0 falls on each of seven items alike: chi-squared of 6 degrees below its 0.1 % bound."""
    counts = [0] * 7
    for seed in range(7000):
        counts[Order(7, seed)(0)] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 22.5


def test_golden_order():
    assert [Order(10, 3)(position) for position in range(20)] == [3, 9, 0, 2, 6, 5, 4, 8, 7, 1, 5, 2, 9, 8, 4, 6, 3, 1, 7, 0]
    assert mix(0, 0) == 0xE220A8397B1DCDAF  # the first number of the reference splitmix64 at seed 0
    assert mix(7, 3) == 10753165928301472203


def test_an_order_of_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="at least one"):
        Order(0, 1)
