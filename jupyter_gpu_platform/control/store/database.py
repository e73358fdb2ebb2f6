"""The databases behind the store: opening, migrating, and turning their errors into ours."""

from __future__ import annotations


class Database:
    incarnation: str

    @classmethod
    def open(cls, url: str) -> Database:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
