"""Options become a spec, whether they come as numbers or as text."""

from __future__ import annotations

import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.client.specifying import specify
from jupyter_gpu_platform.model.jobs import Command

TRUE = Command(argv=("true",))


def test_sizes_and_durations_may_be_text() -> None:
    as_text = specify(
        TRUE, here=False, memory="16GiB", gpu_memory="40G", max_run_time="1h30m", max_queue_time="1d", max_output="1MB"
    )
    as_numbers = specify(
        TRUE,
        here=False,
        memory=16 * 2**30,
        gpu_memory=40 * 2**30,
        max_run_time=5400,
        max_queue_time=86400.0,
        max_output=1_000_000,
    )
    assert as_text == as_numbers


@pytest.mark.parametrize("options", [{"memory": "much"}, {"max_run_time": "soon"}])
def test_text_that_is_neither_is_refused(options) -> None:
    with pytest.raises(errors.InvalidRequest, match="is not a"):
        specify(TRUE, here=False, **options)
