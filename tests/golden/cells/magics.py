"""Magics, help, payloads, and names of earlier cells."""

from __future__ import annotations

from ..transcripts import STREAMS, TIMES
from .cell import cell

# --- magics, help, payloads

cell(
    "%time and %timeit",
    """
%time sum(range(10))
%timeit -n1 -r1 pass
""",
    TIMES,
)
cell(
    "%%time",
    """
%%time
print('timed')
5
""",
    TIMES,
)
cell(
    "%%html and friends",
    """
%%html
<b>x</b>
""",
)
cell(
    "%%javascript",
    """
%%javascript
alert(1)
""",
)
cell(
    "%%latex",
    """
%%latex
$x$
""",
)
cell(
    "%%capture inside",
    """
%%capture captured
print('hidden')
5
""",
    after="'captured' in globals() or True",
)
cell(
    "%%capture inside, shown",
    """
from IPython.utils.capture import capture_output
with capture_output() as c:
    print('hidden')
    display('too')
c.show()
len(c.outputs)
""",
)
cell(
    "%%capture around",
    """
print('hidden')
display('too')
7
""",
    above="%%capture captured\n",
    after="""
captured.show()
print(len(captured.outputs))
_ if False else 0
""",
)
cell(
    "%%writefile and %run",
    """
%%writefile made.py
print('ran', __name__)
""",
    after="%run made.py",
)
cell(
    "%who and %whos",
    """
number = 1
%who
""",
    terminal=False,
)
cell(
    "%env and %pwd",
    """
%env MINE=1
%pwd
""",
)
cell(
    "magics called by name",
    """
get_ipython().run_line_magic('time', '1 + 1')
get_ipython().run_cell_magic('bash', '', 'echo by name')
""",
    TIMES,
    STREAMS,
)
cell("a magic that does not exist", "%no_such_magic x", raises=True)
cell(
    "a cell magic that does not exist",
    """
%%no_such_magic
x
""",
    raises=True,
)
cell(
    "a magic of one's own",
    """
from IPython.core.magic import register_line_magic
@register_line_magic
def twice(line):
    return line * 2
%twice ab
""",
)
cell("help", "len?", terminal=False)
cell(
    "help on a function of one's own, with source",
    """
def mine(a, b=2):
    'Do it.'
    return a
mine??
""",
    terminal=False,
)
cell("help()", "help(len)")
cell("a pattern", "*int*?", terminal=False)
cell(
    "the next input",
    """
get_ipython().set_next_input('print(1)')
print('x')
""",
    terminal=False,
)
cell(
    "%load",
    r"""
open('loaded.py', 'w').write('a = 1\n')
%load loaded.py
""",
    terminal=False,
)
cell("the input's replacement", "get_ipython().set_next_input('x = 2', replace=True)", terminal=False)
cell(
    "only comments",
    """
# nothing

# at all
""",
)
cell("blank lines and a trailing newline", "print('x')")
cell(
    "a docstring and a lambda",
    """
f = lambda x: x
f.__doc__ = 'd'
f
""",
)
cell(
    "environment",
    """
import sys, os
os.path.basename(sys.executable), sys.argv[1:] == sys.argv[1:], __name__, os.getcwd() == os.path.abspath('.')
""",
)
cell(
    "code with tabs and odd spaces",
    """
if True:
	print('tab')


x = [
  1,
     2]
x
""",
)

# --- names of earlier cells

cell(
    "an error in a function of an earlier cell",
    "print('calling')\nf(0)",
    before="def inner(x):\n    return 1 / x\n\ndef f(x):\n    return inner(x)",
    raises=True,
)
cell(
    "a warning in a function of an earlier cell",
    "f()",
    before="import warnings\ndef f():\n    warnings.warn('from earlier')",
)
cell(
    "an object of a class of an earlier cell",
    "p = Point(3)\nprint(p, isinstance(p, Point), Point.__module__)\np.x",
    before="""
class Point:
    def __init__(self, x):
        self.x = x
    def __repr__(self):
        return f'Point({self.x})'
""",
)
cell(
    "values and modules of an earlier cell",
    "data['a'].append(k)\nprint(data, math.pi, np.sqrt(4))\ndata",
    before="import math\nimport numpy as np\ndata = {'a': [1, 2]}\nk = 3",
)
cell("the last value of an earlier cell", "_ + 1", before="41")
cell(
    "a frame of an earlier cell",
    "df.b = df.b * 2\ndf.head(1)",
    before="import pandas as pd\ndf = pd.DataFrame({'b': [1, 2]})",
)
cell("a shell line with names", "!echo $x {y}", before="x, y = 'first', [1, 2]")
cell("help on a function of an earlier cell", "f??", before="def f(a):\n    'Do it.'\n    return a", terminal=False)
cell(
    "a result that is used afterwards", "[1, {'a': 2}]", after="print(type(_).__name__, Out[max(Out)] is _)\n_[1]['a']"
)
cell("a coroutine function of an earlier cell", "await f(2)", before="async def f(n):\n    return n * 2")
