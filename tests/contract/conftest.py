from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def contract_page() -> str:
    """docs/contract.md, which has to name every check and every seeded bug."""
    return Path(__file__).parents[2].joinpath("docs/contract.md").read_text()
