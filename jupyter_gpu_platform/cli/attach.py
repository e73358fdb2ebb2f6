"""``jupyter gpu attach``: come back to a job and watch it as if it had been started here."""

from __future__ import annotations

from ..client.naming import job_named
from .arguments import Parser
from .attending import CODES, Attended, view_of
from .connecting import connect


def parser() -> Parser:
    made = Parser(
        "attach",
        "Show a job's output from its beginning, answer what its code asks, and go on until it ends. The exit code is "
        "the job's. Ctrl-C offers to cancel the job or to detach from it; where nobody can be asked, it detaches.",
        examples="""
            jupyter gpu attach j01m7zdrv3zhb8rnsc2
            jupyter gpu attach j01m7z && echo trained     # goes on here only if the job succeeds
        """,
        codes=CODES,
    )
    made.job()
    made.json_option("the records, one a line, the job last,")
    return made


def main(argv: list[str]) -> int:
    args = parser().parse_args(argv)
    with connect() as client:
        job = job_named(client, args.job)
        return Attended(client, job, view_of(job, as_json=args.json), unasked="detach").run()
