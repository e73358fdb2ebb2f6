from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model import records


@given(st.integers(0, 2**62))
def test_a_cursor_comes_back_as_it_was(position: int) -> None:
    assert records.decode_cursor(records.encode_cursor(position)) == position


def test_the_empty_cursor_is_the_beginning() -> None:
    assert records.decode_cursor("") == 0


@pytest.mark.parametrize("bad", ["x", "c", "c-1", "c01", "cA", "c 1", "c+1", "c1_0", "c" + "f" * 17, "5", "cé"])
def test_what_is_not_a_cursor_is_refused(bad: str) -> None:
    with pytest.raises(errors.InvalidCursor):
        records.decode_cursor(bad)
