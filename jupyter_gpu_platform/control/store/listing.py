"""A page of the list of jobs, whose time doesn't grow with the store.

Each filter that people use has an index that ends with (phase, id): a page is read from the newest end of a few ranges
of it, one for each phase, and merged. Filters without an index in common (a part of the name; an owner and a cluster)
are looked for among the newest jobs that one index finds, a thousand and then ten thousand of them. Where that is not
enough the caller is told to ask for less, instead of everybody waiting for a walk through a million rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ... import errors
from ...model.jobs import Phase
from . import rows

if TYPE_CHECKING:
    from .transaction import Transaction

#: So many jobs of one index are looked through for filters that it doesn't know: first few, then many.
LOOKED_THROUGH = (1_000, 10_000)
_COLUMNS = ("organisation", "owner", "project", "cluster")


class Query(NamedTuple):
    """SQL and its values."""

    sql: str
    values: tuple[object, ...] = ()


class _Source(NamedTuple):
    """An index that finds jobs in order: the ranges of it that hold them."""

    table: str
    id: str
    ranges: list[list[tuple[str, str]]]
    #: the filters that it answers
    answers: frozenset[str]


def page_of(tx: Transaction, wanted: rows.JobFilter, limit: int, after: str | None) -> tuple[list[bytes], bool]:
    """Return the payloads of a page, the newest first, and whether more follow.

    :raises FilterTooBroad: no index finds them, and the newest that one finds hold too few.
    """
    filters = _filters(wanted)
    sources = list(_sources(tx, wanted))
    for source in sources:
        if filters <= source.answers:
            found = _read(tx, _page(_ids(source, after, limit + 1), limit + 1))
            return found[:limit], len(found) > limit
    for bound in LOOKED_THROUGH:
        for source in sources:
            candidates = _ids(source, after, bound + 1)
            found = _read(tx, _page(_matching(candidates, wanted, filters - source.answers, bound), limit + 1))
            if len(found) > limit or _count(tx, candidates) <= bound:
                return found[:limit], len(found) > limit
    raise errors.FilterTooBroad(
        f"too many jobs would have to be looked through: the newest {LOOKED_THROUGH[-1]:,} don't fill a page",
        hint=f"Add one of these filters, or another value: {', '.join(_unused(wanted))}.",
    )


def _filters(wanted: rows.JobFilter) -> frozenset[str]:
    """Name what a filter asks for."""
    found = {column for column in _COLUMNS if getattr(wanted, column) is not None}
    found |= {f"label {key}" for key in wanted.label}
    return frozenset(found | ({"phase"} if wanted.phases else set()) | ({"name"} if wanted.name else set()))


def _unused(wanted: rows.JobFilter) -> list[str]:
    free = [name for name in ("cluster", "owner", "project") if getattr(wanted, name) is None]
    return [*([] if wanted.label else ["label"]), *([] if wanted.phases else ["phase"]), *free]


def _sources(tx: Transaction, wanted: rows.JobFilter) -> Iterator[_Source]:
    """Give the indexes that know some of the filters, the most telling first."""
    for key, value in wanted.label.items():
        pairs = [("key", key), ("value", value.replace("\0", ""))]
        yield _Source("job_label", "job", [pairs], frozenset({f"label {key}"}))
    phases = [phase.value for phase in dict.fromkeys(wanted.phases or Phase)]

    def each_phase(pairs: list[tuple[str, str]], *answers: str) -> _Source:
        return _Source("job", "id", [[*pairs, ("phase", phase)] for phase in phases], frozenset({"phase", *answers}))

    if wanted.cluster is not None:
        yield each_phase([("cluster", wanted.cluster)], "cluster")
    for column in ("owner", "project"):
        value = getattr(wanted, column)
        if value is not None:
            organisations = _organisations(tx) if wanted.organisation is None else [wanted.organisation]
            parts = [each_phase([("organisation", name), (column, value)]) for name in organisations]
            ranges = [pairs for part in parts for pairs in part.ranges]
            yield _Source("job", "id", ranges, frozenset({"phase", "organisation", column}))
    if wanted.phases:
        yield each_phase([])
    else:
        yield _Source("job", "id", [[]], frozenset())


def _organisations(tx: Transaction) -> list[str]:
    """List the organisations that have jobs: one look into the index for each."""
    found: list[str] = []
    while True:
        query = Query("SELECT min(organisation) FROM job WHERE organisation > ?", (found[-1] if found else "",))
        name = tx.read(query.sql, query.values)[0][0]
        if name is None:
            return found
        found.append(str(name))


def _ids(source: _Source, after: str | None, limit: int) -> Query:
    """The ids of the newest jobs that a source finds."""
    parts, values = [], []
    for pairs in source.ranges:
        conditions = [f"{column} = ?" for column, _ in pairs] + ([f"{source.id} < ?"] if after else [])
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        parts.append(
            f"SELECT id FROM (SELECT {source.id} AS id FROM {source.table}{where} "  # noqa: S608 - our own names; values are bound -- names are our own
            f"ORDER BY {source.id} DESC LIMIT {limit}) AS part"
        )
        values += [value for _, value in pairs] + ([after] if after else [])
    if not parts:  # no organisation has a job yet
        return Query("SELECT id FROM job WHERE 1 = 0")
    if len(parts) == 1:
        return Query(parts[0], tuple(values))
    merged = " UNION ALL ".join(parts)
    return Query(f"SELECT id FROM ({merged}) AS parts ORDER BY id DESC LIMIT {limit}", tuple(values))  # noqa: S608 - our own names; values are bound


def _matching(ids: Query, wanted: rows.JobFilter, filters: frozenset[str], bound: int) -> Query:
    """Those of the ids whose jobs have what the source doesn't know."""
    conditions: list[str] = []
    values: list[object] = []
    for column in sorted(filters & set(_COLUMNS)):
        conditions.append(f"job.{column} = ?")
        values.append(getattr(wanted, column))
    if "phase" in filters:
        conditions.append(f"job.phase IN ({', '.join('?' * len(wanted.phases))})")
        values += [phase.value for phase in wanted.phases]
    if wanted.name:
        conditions.append("lower(job.name) LIKE lower(?) ESCAPE '/'")
        escaped = wanted.name.replace("/", "//").replace("%", "/%").replace("_", "/_")
        values.append(f"%{escaped}%")
    for key, value in wanted.label.items():
        if f"label {key}" in filters:
            has = "SELECT 1 FROM job_label AS l WHERE l.job = job.id AND l.key = ? AND l.value = ?"
            conditions.append(f"EXISTS ({has})")
            values += [key, value.replace("\0", "")]
    sql = (
        f"SELECT job.id FROM (SELECT id FROM ({ids.sql}) AS newest ORDER BY id DESC LIMIT {bound}) AS newest "  # noqa: S608 - our own names; values are bound
        f"CROSS JOIN job WHERE job.id = newest.id AND {' AND '.join(conditions)}"
    )
    return Query(sql, (*ids.values, *values))


def _page(ids: Query, limit: int) -> Query:
    # CROSS JOIN is SQLite's way to say: this first, and not all jobs in the page's order.
    page = f"SELECT id FROM ({ids.sql}) AS found ORDER BY id DESC LIMIT {limit}"  # noqa: S608 - our own names; values are bound -- names are our own
    first = f"SELECT job.payload FROM ({page}) AS page CROSS JOIN job"  # noqa: S608 - our own names; values are bound -- names are our own
    return Query(f"{first} WHERE job.id = page.id ORDER BY page.id DESC", ids.values)


def _read(tx: Transaction, query: Query) -> list[bytes]:
    return [row[0] for row in tx.read(query.sql, query.values)]


def _count(tx: Transaction, ids: Query) -> int:
    return int(tx.read(f"SELECT count(*) FROM ({ids.sql}) AS newest", ids.values)[0][0])  # noqa: S608 - our own names; values are bound


def plans(tx: Transaction, wanted: rows.JobFilter, limit: int, after: str | None) -> list[Sequence[object]]:
    """Return how the database would read the ids of a page, from each index that may be asked: EXPLAIN's rows."""
    explain = "EXPLAIN QUERY PLAN " if tx.connection.dialect.name == "sqlite" else "EXPLAIN "
    queries = [_ids(source, after, limit) for source in _sources(tx, wanted)]
    return [tx.read(explain + query.sql, query.values) for query in queries]
