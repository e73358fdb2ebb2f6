"""Lists in statements."""

from __future__ import annotations

import pytest

from jupyter_gpu_platform.control.store import tables


@pytest.mark.parametrize(("count", "length"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (256, 256), (257, 512)])
def test_lists_have_few_lengths_and_the_same_members(count: int, length: int) -> None:
    values = [str(number) for number in range(count)]
    made = tables.padded(values)
    assert (len(made), set(made)) == (length, set(values))
    assert made[:count] == values
