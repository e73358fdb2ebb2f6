from __future__ import annotations

import pytest

from jupyter_gpu_platform.model.resources import Gpu, Resources, fits_gpu, fits_model


@pytest.mark.parametrize(
    ("wanted", "model", "fits"),
    [
        (None, "Tesla T4", True),
        ("a100", "NVIDIA A100-SXM4-80GB", True),
        ("H100-SXM", "NVIDIA H100 80GB HBM3 SXM", True),
        ("H100", "NVIDIA A100", False),
    ],
)
def test_a_model_is_matched_by_its_words(wanted: str | None, model: str, fits: bool) -> None:
    assert fits_model(wanted, model) is fits


def test_a_gpu_needs_enough_memory() -> None:
    gpu = Gpu(index=0, uuid="u", model="T4", memory=16 * 2**30)
    assert fits_gpu(Resources(gpus=1, gpu_memory=16 * 2**30), gpu)
    assert not fits_gpu(Resources(gpus=1, gpu_memory=17 * 2**30), gpu)
