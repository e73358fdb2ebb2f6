"""Deliberate bugs, put into the started programs from outside: ``sitecustomize`` here is found through PYTHONPATH.

Each replaces one function of one module once that is imported, so nothing in the product knows of them.
"""

from .sitecustomize import CHANGES

BUGS = tuple(CHANGES)
