"""Deliberate bugs, put into the started programs from outside: ``sitecustomize`` here is found through PYTHONPATH.

Each replaces one function of one module once that is imported, so nothing in the product knows of them.
"""

from .sitecustomize import CHANGES

#: each bug, and the check (of `checks.CHECKS`) that is there to catch it
BUGS = {
    "acknowledge-before-commit": "accepted",
    "acknowledge-output-before-commit": "content",
    "skip-the-fence": "content",
    "place-twice": "holders",
    "drop-the-last-record": "content",
}

assert BUGS.keys() == CHANGES.keys()
