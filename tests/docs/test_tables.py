"""The tables that are made from the code are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from jupyter_gpu_platform.control.limits import Limits

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_no_page_is_behind(tables: ModuleType, page: str) -> None:
    text = (DOCS / page).read_text()
    assert tables.renewed(text) == text, "bring it up to date with: python docs/tables.py --write"


def test_every_limit_and_every_figure_is_in_a_table(tables: ModuleType) -> None:
    limits, figures = tables.limits(), tables.figures()
    assert all(f"`{name}`" in limits for name in Limits.class_own_traits(config=True))
    assert "`jgp_queue_depth`" in figures
    page = (DOCS / "operations-service.md").read_text()
    assert limits in page
    assert figures in page


def test_a_table_that_is_behind_is_made_anew(tables: ModuleType) -> None:
    page = "before\n<!-- table: limits -->\nold\n<!-- end of table -->\nafter"
    new = tables.renewed(page)
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("\nafter")
    assert tables.renewed(new) == new
