"""Cells that fail, or show failures."""

from __future__ import annotations

from ..transcripts import DEPTH, STREAMS
from .cell import cell

# --- errors

cell(
    "an error in a function",
    """
def f(x):
    y = x + 1
    return 1 / (y - 1)

print('before')
f(0)
print('never')
""",
    raises=True,
)
cell(
    "an error with a cause",
    """
try:
    {}['k']
except KeyError as error:
    raise ValueError('outer') from error
""",
    raises=True,
)
cell(
    "an error while handling one",
    """
def inner():
    raise KeyError('k')
try:
    inner()
except KeyError:
    int('x')
""",
    raises=True,
)
cell(
    "an error with a hidden cause",
    """
try:
    {}['k']
except KeyError:
    raise ValueError('alone') from None
""",
    raises=True,
)
cell(
    "an exception group",
    """
raise ExceptionGroup('several', [ValueError('a'), ExceptionGroup('inner', [KeyError('b')])])
""",
    raises=True,
)
cell(
    "an error with notes",
    """
error = ValueError('noted')
error.add_note('note one')
error.add_note('note two')
raise error
""",
    raises=True,
)
cell(
    "an error of a class of one's own",
    r"""
class Odd(Exception):
    def __str__(self):
        return 'odd\ntext ünï'
raise Odd(1, 2)
""",
    raises=True,
)
cell("an error without a text", "assert 1 == 2", raises=True)
cell(
    "a syntax error",
    """
def f(:
    pass
""",
    raises=True,
)
cell(
    "an indentation error",
    """
if True:
print(1)
""",
    raises=True,
)
cell("a syntax error in evaluated code", "eval('1 +')", raises=True)
cell("an unfinished string", "print('abc", raises=True)
cell(
    "an error in a library",
    """
import json
json.loads('{')
""",
    raises=True,
)
cell(
    "endless recursion",
    """
def f(n):
    return f(n + 1)
f(0)
""",
    DEPTH,
    raises=True,
)
cell(
    "an error that draws itself",
    """
class Drawn(Exception):
    def _render_traceback_(self):
        return ['drawn', 'by itself']
raise Drawn('x')
""",
    raises=True,
)
cell(
    "a shown traceback, then text",
    """
try:
    1 / 0
except ZeroDivisionError:
    get_ipython().showtraceback()
print('goes on')
3
""",
)
cell(
    "a printed traceback",
    """
import traceback
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
""",
)
cell("a KeyboardInterrupt of one's own", "raise KeyboardInterrupt('mine')", raises=True)
cell(
    "sys.exit",
    """
import sys
print('before')
sys.exit()
""",
    STREAMS,
    raises=True,
)
cell("sys.exit with a number", "raise SystemExit(3)", STREAMS, raises=True)
cell(
    "sys.exit with a text",
    """
import sys
sys.exit('bye')
""",
    STREAMS,
    raises=True,
)
cell("%tb after an error", "1 / 0", after="%tb", terminal=False, raises=True)
cell(
    "an error and then values",
    """
x = 5
x / 0
""",
    after="print('next')",
    raises=True,
)
cell("a name that does not exist", "no_such_name + 1", raises=True)
cell(
    "a warning",
    """
import warnings
warnings.warn('careful')
warnings.warn('deprecated', DeprecationWarning)
""",
)
cell(
    "a warning made an error",
    """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter('error')
    warnings.warn('hard')
""",
    raises=True,
)
cell(
    "a syntax warning",
    """
x = 5
x is 5
""",
    terminal=False,
)
cell(
    "logging",
    """
import logging
logging.basicConfig(format='%(levelname)s %(name)s %(message)s', level='INFO', force=True)
logging.info('info')
logging.getLogger('mine').warning('warned')
logging.debug('hidden')
""",
)
cell(
    "an exception logged",
    """
import logging
logging.basicConfig(format='%(message)s', force=True)
try:
    1 / 0
except ZeroDivisionError:
    logging.exception('failed')
""",
)
cell("input without anybody", "input('name? ')", terminal=False, raises=True)
cell(
    "getpass without anybody",
    """
import getpass
getpass.getpass()
""",
    terminal=False,
    raises=True,
)
