"""The store: jobs, attempts, the change log and the output log, in SQLite or PostgreSQL."""

from .database import Database
from .feed import ChangeFeed
from .output import OutputLane
from .reader import Reader
from .rows import (
    Agent,
    ApiToken,
    ChangeFilter,
    ChangePage,
    ChangeRow,
    Cluster,
    Event,
    JobFilter,
    JobPage,
    JoinToken,
    Lease,
    OutputPage,
    Remembered,
    StoredObject,
    UnknownAttempt,
)
from .transaction import Transaction
from .writer import Writer

__all__ = [
    "Agent",
    "ApiToken",
    "ChangeFeed",
    "ChangeFilter",
    "ChangePage",
    "ChangeRow",
    "Cluster",
    "Database",
    "Event",
    "JobFilter",
    "JobPage",
    "JoinToken",
    "Lease",
    "OutputLane",
    "OutputPage",
    "Reader",
    "Remembered",
    "StoredObject",
    "Transaction",
    "UnknownAttempt",
    "Writer",
]
