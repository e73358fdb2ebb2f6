"""Encodings of each released version are kept in samples/ and must decode (docs/contract.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from jupyter_gpu_platform.model.jobs import Job, JobSpec, new_job_id

SAMPLES = sorted(Path(__file__).parent.joinpath("samples").glob("*.json"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_kept_sample_decodes_and_keeps_every_field(sample: Path) -> None:
    kind = JobSpec if sample.name.startswith("jobspec") else Job
    raw = msgspec.json.decode(sample.read_bytes())
    decoded = msgspec.json.decode(sample.read_bytes(), type=kind)
    assert _within(raw, decoded)
    assert msgspec.json.decode(msgspec.json.encode(decoded), type=kind) == decoded


def _within(kept: Any, now: Any) -> bool:
    """Say whether everything that was kept is there still; fields may have come since."""
    if isinstance(now, msgspec.Struct):
        fields = {"type": now.__struct_config__.tag} | msgspec.structs.asdict(now)
        return all(key in fields and _within(kept[key], fields[key]) for key in kept)
    if isinstance(kept, list):
        return len(kept) == len(now) and all(map(_within, kept, now))
    if isinstance(kept, dict):
        return isinstance(now, dict) and all(key in now and _within(kept[key], now[key]) for key in kept)
    return bool(kept == now)


def test_there_are_samples() -> None:
    assert SAMPLES


def test_job_ids_sort_by_time() -> None:
    assert new_job_id(1000.0) < new_job_id(1000.001)
    assert len(new_job_id()) == 19


def test_an_unknown_field_of_a_spec_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="gpu"):
        msgspec.json.decode(b'{"source":{"type":"cell","code":""},"gpu":1}', type=JobSpec)
