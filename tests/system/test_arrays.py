"""Arrays of ranges, and of groups of equal values."""

import numpy as np

from gptbox.system.arrays import group_begins, ranges


def test_ranges_are_concatenated() -> None:
    assert ranges(np.array([5, 0, 7]), np.array([2, 0, 3])).tolist() == [5, 6, 7, 8, 9]
    assert ranges(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == []


def test_a_group_begins_at_each_new_value() -> None:
    assert group_begins(np.array([4, 4, 2, 4, 4, 4])).tolist() == [0, 2, 3]
    assert group_begins(np.array([7])).tolist() == [0]
    assert group_begins(np.empty(0, np.uint64)).tolist() == []
