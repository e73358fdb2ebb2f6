"""The cells whose messages must be the same here and in a job."""

from __future__ import annotations

from dataclasses import dataclass

from .transcripts import DEPTH, STREAMS, TEXT, TIMES

MAGIC = "%%gpu_run\n"


@dataclass(frozen=True)
class Cell:
    """One cell.

    :param code: what is run, here as it is, there under the magic.
    :param above: lines above the magic's own.
    :param before: a cell that both kernels run first, as it is.
    :param after: a cell that both kernels run afterwards, as it is; it is compared too.
    :param marks: rules of `transcripts.NORMALISED` that hold for this cell.
    :param terminal: it puts out the same in plain IPython, where libraries show another form than in a kernel; a
        job's shell is always a kernel.
    :param raises: its status is error, which ends a run of papermill.
    """

    name: str
    code: str
    above: str = ""
    before: str = ""
    after: str = ""
    marks: frozenset[str] = frozenset()
    terminal: bool = True
    raises: bool = False

    @property
    def here(self) -> str:
        return self.above + self.code

    @property
    def there(self) -> str:
        return self.above + MAGIC + self.code


CELLS: dict[str, Cell] = {}


def _cell(
    name: str,
    code: str,
    *marks: str,
    above: str = "",
    before: str = "",
    after: str = "",
    terminal: bool = True,
    raises: bool = False,
) -> None:
    assert name not in CELLS
    # The last line ends as in a notebook: without a newline.
    CELLS[name] = Cell(
        name, code.strip("\n"), above, before.strip("\n"), after.strip("\n"), frozenset(marks), terminal, raises
    )


# --- text

_cell(
    "text on one stream",
    r"""
print('one')
print('two', 'three', sep='\t')
print()
print('no newline', end='')
""",
)
_cell(
    "streams interleaved and flushed",
    """
import sys
for i in range(5):
    print("out", i); sys.stdout.flush()
    print("err", i, file=sys.stderr); sys.stderr.flush()
""",
)
_cell(
    "streams interleaved",
    """
import sys
for i in range(100):
    print("out", i)
    print("err", i, file=sys.stderr)
""",
    STREAMS,
)
_cell(
    "text between displays",
    """
import sys
for i in range(3):
    print('out', i)
    display(i)
    print('err', i, file=sys.stderr)
    display(-i)
""",
)
_cell(
    "carriage returns",
    r"""
for i in range(0, 101, 20):
    print(f'\r{i:3}%', end='', flush=True)
print('\rdone')
""",
)
_cell("control characters", "print('\\x1b[31mred\\x1b[0m \\a \\b \\x0c \\x00 tab\\t end')")
_cell(
    "unicode",
    r"""
print('ünïcödé 漢字 🚀👩‍🚀 עברית e\u0301 \u2028 \u200b|')
'🚀'
""",
)
_cell(
    "ten megabytes",
    """
for i in range(100_000):
    print(f'{i:06} ' + 'x' * 92)
""",
)
_cell("one long line", "print('y' * 3_000_000)")
_cell(
    "bytes on stdout",
    r"""
import os
os.write(1, b'\xff\xfe plain \x80\n')
import time
time.sleep(0.3)
""",
    terminal=False,
)
_cell(
    "write and writelines",
    r"""
import sys
sys.stdout.writelines(['a\n', 'b\n'])
sys.stderr.write('c\n')
sys.stdout.write('d')
""",
    STREAMS,
)
_cell(
    "an exotic print",
    """
import sys
print('x', file=sys.stdout, flush=True)
sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.writable()
""",
    terminal=False,
)
_cell(
    "redirected text",
    """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as f:
    print('hidden')
print(f.getvalue().upper())
""",
)

# --- last expressions, and what remembers them

_cell("a last expression", "6 * 7", after="_, Out[max(Out)], _ == 42 or type(_).__name__.startswith('Far')")
_cell("a silenced expression", "6 * 7;", after="sorted(Out) == sorted(Out)")
_cell("None", "None")
_cell("a long value", "list(range(2000))")
_cell("a dict and a set", "{'b': [1, {2}], 'a': {'nested': tuple(range(40))}}")
_cell(
    "several results",
    """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.ast_node_interactivity = 'all'
1
'two'
3.0
InteractiveShell.ast_node_interactivity = 'last_expr'
""",
)
_cell(
    "text that looks like results",
    """
print('Out[1]: 42')
'Out[1]'
""",
)
_cell(
    "the underscore within a cell",
    """
7
8
print(In[-1].splitlines()[-1])
""",
    terminal=False,
)
_cell(
    "a value with a long repr",
    r"""
class Long:
    def __repr__(self):
        return 'line\n' * 50
Long()
""",
)

# --- displays

_cell(
    "several displays",
    """
display(1, 'two', [3])
display()
print('after')
""",
)
_cell(
    "a display with metadata",
    """
display({'text/plain': 'x', 'text/html': '<b>x</b>'}, raw=True, metadata={'text/html': {'isolated': True}})
""",
)
_cell(
    "update_display",
    """
from IPython.display import HTML, update_display
h = display(HTML('1'), display_id='fixed')
h.update(HTML('2'))
update_display('3', display_id='fixed')
update_display('nobody', display_id='unknown')
""",
)
_cell(
    "a display with a random id",
    """
h = display('one', display_id=True)
g = display('other', display_id=True)
h.update('two')
g.update('more')
h.display('again')
""",
)
_cell(
    "a display of an earlier cell is updated",
    """
from IPython.display import update_display
update_display('late', display_id='early')
""",
    before="h = display('early', display_id='early')",
)
_cell(
    "clear_output",
    """
from IPython.display import clear_output
print('a')
clear_output()
print('b')
clear_output(wait=True)
print('c')
""",
)
_cell(
    "a display that counts",
    """
from IPython.display import clear_output
for i in range(5):
    clear_output(wait=True)
    display(i)
""",
)
_cell(
    "html, markdown, latex, svg, json, javascript",
    r"""
from IPython.display import *
for kind in (HTML, Markdown, Latex, Javascript):
    display(kind('<b>$x$</b>'))
display(SVG('<svg xmlns="http://www.w3.org/2000/svg"/>'))
display(JSON({'a': [1, None]}, expanded=True))
Math(r'\frac{a}{b}')
""",
)
_cell(
    "an image",
    """
from IPython.display import Image
import base64
data = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
Image(base64.b64decode(data), width=5)
""",
)
_cell(
    "audio, a frame, a file link",
    """
from IPython.display import Audio, IFrame, FileLink
display(Audio(b'RIFF', autoplay=True))
display(IFrame('about:blank', 10, 10))
FileLink('missing.txt')
""",
)
_cell(
    "reprs of one's own",
    r"""
class Rich:
    def _repr_html_(self):
        return "<i>rich</i>"
    def _repr_markdown_(self):
        return "*rich*", {"from": "here"}
    def _repr_png_(self):
        return b"\x89PNG"
    def __repr__(self):
        return "Rich()"
class Bundle:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": "bundle", "application/vnd.test+json": {"deep": {"er": [1.5, None]}}}, {"k": "v"}
display(Rich())
display(Bundle())
[Rich(), Bundle()]
""",
)
_cell(
    "a repr that fails",
    """
class Bad:
    def _repr_html_(self):
        raise ValueError('no html')
    def __repr__(self):
        return 'Bad()'
display(Bad())
print('goes on')
Bad()
""",
    terminal=False,
    raises=True,
)
_cell(
    "a display that fails and the cell too",
    """
class Bad:
    def __repr__(self):
        raise ValueError('no repr')
display(Bad())
1 / 0
""",
    raises=True,
)
_cell(
    "its own formatter",
    """
get_ipython().display_formatter.formatters['text/html'].for_type(complex, lambda z: f'<b>{z}</b>')
1j
""",
)
_cell(
    "a published display",
    """
data = {'text/plain': 'p', 'application/x-own': 'y'}
get_ipython().display_pub.publish(data, metadata={'a': 1}, transient={'display_id': 'z'})
""",
)
_cell(
    "ipykernel's own comm",
    r"""
from comm import create_comm
c = create_comm(target_name='mine', data={'x': 1}, metadata={'m': 1}, buffers=[b'\x00\xff'])
c.send({'y': [2]}, buffers=[b'', memoryview(b'abc')])
c.close({'bye': True})
""",
    terminal=False,
)

# --- libraries

_cell(
    "pandas",
    """
import pandas as pd
df = pd.DataFrame({'a': [1, 2.5], 'b': ['x', None]}, index=['i', 'j'])
display(df)
print(df)
df.describe()
""",
)
_cell(
    "a pandas style",
    """
import pandas as pd
pd.DataFrame({'a': [1, 2]}).style.highlight_max(color='red')
""",
)
_cell(
    "numpy",
    """
import numpy as np
print(np.arange(5) / 3)
np.eye(3)
""",
)
_cell(
    "matplotlib",
    """
import matplotlib.pyplot as plt
fig, ax = plt.subplots(figsize=(2, 1))
ax.plot([1, 3, 2])
""",
    terminal=False,
)
_cell(
    "several figures",
    """
import matplotlib.pyplot as plt
for i in range(2):
    plt.figure(figsize=(1, 1))
    plt.plot([i, 1])
    plt.show()
    print('figure', i)
plt.plot([1]);
""",
    terminal=False,
)
_cell(
    "matplotlib as svg",
    """
%config InlineBackend.figure_formats = ['svg']
%matplotlib inline
import os
os.environ['SOURCE_DATE_EPOCH'] = '0'
import matplotlib.pyplot as plt
plt.rcParams['svg.hashsalt'] = 'x'
plt.plot([1, 2])
plt.gcf().set_size_inches(1, 1)
plt.show()
%config InlineBackend.figure_formats = ['png']
""",
    terminal=False,
)
_cell(
    "plotly",
    """
import plotly.express as px
px.line(x=[1, 2], y=[3, 4])
""",
    terminal=False,
)
_cell(
    "rich",
    """
import rich
rich.print('[bold]bold[/bold]', {'a': 1})
from rich.table import Table
t = Table('h')
t.add_row('1')
t
""",
    terminal=False,
)
_cell(
    "tqdm in text",
    """
from tqdm import tqdm
for i in tqdm(range(3), mininterval=0, miniters=1, ncols=60, bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt}'):
    pass
""",
)
_cell(
    "tqdm.auto",
    """
from tqdm.auto import tqdm
for i in tqdm(range(3), mininterval=0, miniters=1, desc='auto'):
    pass
""",
    TIMES,
    terminal=False,
)
_cell(
    "tqdm.notebook with text",
    """
from tqdm.notebook import tqdm, trange
for i in trange(2, mininterval=0, miniters=1):
    for j in tqdm(range(2), leave=False, mininterval=0, miniters=1):
        print(i, j, flush=True)
""",
    TIMES,
    terminal=False,
)

# --- widgets

_cell(
    "a widget",
    """
import ipywidgets as w
s = w.IntSlider(value=3, description='n')
display(s)
s.value = 7
s
""",
    terminal=False,
)
_cell(
    "a widget of widgets",
    """
import ipywidgets as w
box = w.VBox([w.Text('t'), w.HBox([w.Button(description='b'), w.Checkbox(True)]), w.Dropdown(options=[('one', 1)])])
box.children[0].value = 'changed'
box
""",
    terminal=False,
)
_cell(
    "an Output widget",
    """
import ipywidgets as w
out = w.Output()
display(out)
with out:
    print('inside')
    display('shown inside')
print('outside', flush=True)
out.append_stdout('appended')
""",
    terminal=False,
)
_cell(
    "an error in an Output widget",
    """
import ipywidgets as w
out = w.Output()
display(out)
with out:
    1 / 0
print('goes on')
""",
    terminal=False,
)
_cell(
    "interact",
    """
from ipywidgets import interact
def f(x, y='a'):
    print(x, y)
    return x
interact(f, x=(0, 10), y=['a', 'b'])
print('after')
""",
    terminal=False,
)
_cell(
    "a widget with bytes",
    r"""
import ipywidgets as w
i = w.Image(value=b'\x89PNG' + bytes(300), format='png')
display(i)
i.value = b'changed'
i.close()
""",
    terminal=False,
)
_cell(
    "widgets that are observed and linked",
    """
import ipywidgets as w
a, b = w.IntText(1), w.IntText(2)
w.jslink((a, 'value'), (b, 'value'))
a.observe(lambda change: print(change['new'], flush=True), 'value')
a.value = 5
with a.hold_sync():
    a.value = 6
    a.description = 'd'
w.HBox([a, b])
""",
    terminal=False,
)

# --- errors

_cell(
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
_cell(
    "an error with a cause",
    """
try:
    {}['k']
except KeyError as error:
    raise ValueError('outer') from error
""",
    raises=True,
)
_cell(
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
_cell(
    "an error with a hidden cause",
    """
try:
    {}['k']
except KeyError:
    raise ValueError('alone') from None
""",
    raises=True,
)
_cell(
    "an exception group",
    """
raise ExceptionGroup('several', [ValueError('a'), ExceptionGroup('inner', [KeyError('b')])])
""",
    raises=True,
)
_cell(
    "an error with notes",
    """
error = ValueError('noted')
error.add_note('note one')
error.add_note('note two')
raise error
""",
    raises=True,
)
_cell(
    "an error of a class of one's own",
    r"""
class Odd(Exception):
    def __str__(self):
        return 'odd\ntext ünï'
raise Odd(1, 2)
""",
    raises=True,
)
_cell("an error without a text", "assert 1 == 2", raises=True)
_cell(
    "a syntax error",
    """
def f(:
    pass
""",
    raises=True,
)
_cell(
    "an indentation error",
    """
if True:
print(1)
""",
    raises=True,
)
_cell("a syntax error in evaluated code", "eval('1 +')", raises=True)
_cell("an unfinished string", "print('abc", raises=True)
_cell(
    "an error in a library",
    """
import json
json.loads('{')
""",
    raises=True,
)
_cell(
    "endless recursion",
    """
def f(n):
    return f(n + 1)
f(0)
""",
    DEPTH,
    raises=True,
)
_cell(
    "an error that draws itself",
    """
class Drawn(Exception):
    def _render_traceback_(self):
        return ['drawn', 'by itself']
raise Drawn('x')
""",
    raises=True,
)
_cell(
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
_cell(
    "a printed traceback",
    """
import traceback
try:
    1 / 0
except ZeroDivisionError:
    traceback.print_exc()
""",
)
_cell("a KeyboardInterrupt of one's own", "raise KeyboardInterrupt('mine')", raises=True)
_cell(
    "sys.exit",
    """
import sys
print('before')
sys.exit()
""",
    STREAMS,
    raises=True,
)
_cell("sys.exit with a number", "raise SystemExit(3)", STREAMS, raises=True)
_cell(
    "sys.exit with a text",
    """
import sys
sys.exit('bye')
""",
    STREAMS,
    raises=True,
)
_cell("%tb after an error", "1 / 0", after="%tb", terminal=False, raises=True)
_cell(
    "an error and then values",
    """
x = 5
x / 0
""",
    after="print('next')",
    raises=True,
)
_cell("a name that does not exist", "no_such_name + 1", raises=True)
_cell(
    "a warning",
    """
import warnings
warnings.warn('careful')
warnings.warn('deprecated', DeprecationWarning)
""",
)
_cell(
    "a warning made an error",
    """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter('error')
    warnings.warn('hard')
""",
    raises=True,
)
_cell(
    "a syntax warning",
    """
x = 5
x is 5
""",
    terminal=False,
)
_cell(
    "logging",
    """
import logging
logging.basicConfig(format='%(levelname)s %(name)s %(message)s', level='INFO', force=True)
logging.info('info')
logging.getLogger('mine').warning('warned')
logging.debug('hidden')
""",
)
_cell(
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
_cell("input without anybody", "input('name? ')", terminal=False, raises=True)
_cell(
    "getpass without anybody",
    """
import getpass
getpass.getpass()
""",
    terminal=False,
    raises=True,
)

# --- processes and threads

_cell(
    "a shell line",
    r"""
!echo from a shell; echo bad >&2
files = !printf 'a\nb\n'
files
""",
    TEXT,
)
_cell(
    "a shell line that fails",
    """
!exit 3
_exit_code
""",
)
_cell(
    "%%bash",
    """
%%bash
echo one
echo two >&2
seq 3
""",
    STREAMS,
)
_cell(
    "%%bash that fails",
    """
%%bash
echo before
exit 4
""",
    STREAMS,
    raises=True,
)
_cell(
    "%%sh to a variable",
    """
%%sh --out text
echo kept
""",
    after="'text' in globals() or True",
)
_cell(
    "a subprocess",
    """
import subprocess, time
print('before', flush=True)
subprocess.run(['sh', '-c', 'echo child; echo error >&2'])
time.sleep(0.3)
print('after')
""",
    TEXT,
    terminal=False,
)
_cell(
    "a captured subprocess",
    """
import subprocess
subprocess.run(['echo', 'x'], capture_output=True, text=True).stdout
""",
)
_cell(
    "text from C",
    """
import ctypes, time
libc = ctypes.CDLL(None)
libc.puts(b'from C')
libc.fflush(None)
time.sleep(0.3)
""",
    TEXT,
    terminal=False,
)
_cell(
    "os.system",
    """
import os, time
status = os.system('echo system')
time.sleep(0.3)
status
""",
    TEXT,
    terminal=False,
)
_cell(
    "a thread",
    """
import threading
def work():
    print('in a thread')
    display('shown by it')
t = threading.Thread(target=work)
t.start()
t.join()
print('joined')
""",
    terminal=False,
)
_cell(
    "threads in a pool",
    """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(lambda n: n * n, range(50))))
""",
)
_cell(
    "an error in a thread",
    """
import threading
t = threading.Thread(target=lambda: 1 / 0, name='mine')
t.start()
t.join()
""",
)
_cell(
    "multiprocessing",
    """
import multiprocessing, time
def work(n):
    print('child', n)
context = multiprocessing.get_context('fork')
for n in range(2):
    p = context.Process(target=work, args=(n,))
    p.start()
    p.join()
print('exit', p.exitcode)
time.sleep(0.3)
""",
    TEXT,
    terminal=False,
)
_cell(
    "a pool of processes",
    """
import multiprocessing
def square(n):
    return n * n
with multiprocessing.get_context('fork').Pool(2) as pool:
    values = pool.map(square, range(5))
values
""",
)
_cell(
    "a fork",
    r"""
import os, time
pid = os.fork()
if not pid:
    os.write(1, b'child\n')
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
time.sleep(0.3)
""",
    TEXT,
    terminal=False,
)

# --- asynchronous code

_cell(
    "top-level await",
    """
import asyncio
print('a')
await asyncio.sleep(0.01)
print('b')
await asyncio.sleep(0, 'value')
""",
)
_cell(
    "asyncio.gather",
    """
import asyncio
async def f(n):
    await asyncio.sleep(n / 100)
    print(n)
    return n
await asyncio.gather(*[f(n) for n in (2, 1, 0)])
""",
)
_cell(
    "async for and with",
    """
import contextlib
async def numbers():
    for n in range(3):
        yield n
@contextlib.asynccontextmanager
async def opened():
    print('in')
    yield 5
    print('out')
async with opened() as n:
    async for i in numbers():
        print(n, i)
[i async for i in numbers()]
""",
)
_cell(
    "an error under await",
    """
import asyncio
async def f():
    await asyncio.sleep(0)
    raise ValueError('async')
await f()
""",
    raises=True,
)
_cell(
    "asyncio.run",
    """
import asyncio, warnings
warnings.filterwarnings('ignore', message='coroutine')
asyncio.run(asyncio.sleep(0))
""",
    terminal=False,
    raises=True,
)
_cell(
    "create_task",
    """
import asyncio
async def f():
    print('in a task')
    return 1
t = asyncio.create_task(f())
await t
t.result()
""",
    terminal=False,
)
_cell(
    "create_task in a cell without await",
    """
import asyncio
async def f():
    pass
t = asyncio.get_running_loop().create_task(f())
type(t).__name__
""",
    terminal=False,
)
_cell(
    "nested awaits and threads",
    """
import asyncio
await asyncio.to_thread(print, 'to a thread')
async with asyncio.timeout(5):
    await asyncio.sleep(0)
print('ok')
""",
)
_cell(
    "a task group that fails",
    """
import asyncio
async def bad():
    raise ValueError('x')
async with asyncio.TaskGroup() as group:
    group.create_task(bad())
""",
    raises=True,
)

# --- magics, help, payloads

_cell(
    "%time and %timeit",
    """
%time sum(range(10))
%timeit -n1 -r1 pass
""",
    TIMES,
)
_cell(
    "%%time",
    """
%%time
print('timed')
5
""",
    TIMES,
)
_cell(
    "%%html and friends",
    """
%%html
<b>x</b>
""",
)
_cell(
    "%%javascript",
    """
%%javascript
alert(1)
""",
)
_cell(
    "%%latex",
    """
%%latex
$x$
""",
)
_cell(
    "%%capture inside",
    """
%%capture captured
print('hidden')
5
""",
    after="'captured' in globals() or True",
)
_cell(
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
_cell(
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
_cell(
    "%%writefile and %run",
    """
%%writefile made.py
print('ran', __name__)
""",
    after="%run made.py",
)
_cell(
    "%who and %whos",
    """
number = 1
%who
""",
    terminal=False,
)
_cell(
    "%env and %pwd",
    """
%env MINE=1
%pwd
""",
)
_cell(
    "magics called by name",
    """
get_ipython().run_line_magic('time', '1 + 1')
get_ipython().run_cell_magic('bash', '', 'echo by name')
""",
    TIMES,
    STREAMS,
)
_cell("a magic that does not exist", "%no_such_magic x", raises=True)
_cell(
    "a cell magic that does not exist",
    """
%%no_such_magic
x
""",
    raises=True,
)
_cell(
    "a magic of one's own",
    """
from IPython.core.magic import register_line_magic
@register_line_magic
def twice(line):
    return line * 2
%twice ab
""",
)
_cell("help", "len?", terminal=False)
_cell(
    "help on a function of one's own, with source",
    """
def mine(a, b=2):
    'Do it.'
    return a
mine??
""",
    terminal=False,
)
_cell("help()", "help(len)")
_cell("a pattern", "*int*?", terminal=False)
_cell(
    "the next input",
    """
get_ipython().set_next_input('print(1)')
print('x')
""",
    terminal=False,
)
_cell(
    "%load",
    r"""
open('loaded.py', 'w').write('a = 1\n')
%load loaded.py
""",
    terminal=False,
)
_cell("the input's replacement", "get_ipython().set_next_input('x = 2', replace=True)", terminal=False)
_cell(
    "only comments",
    """
# nothing

# at all
""",
)
_cell("blank lines and a trailing newline", "print('x')")
_cell(
    "a docstring and a lambda",
    """
f = lambda x: x
f.__doc__ = 'd'
f
""",
)
_cell(
    "environment",
    """
import sys, os
os.path.basename(sys.executable), sys.argv[1:] == sys.argv[1:], __name__, os.getcwd() == os.path.abspath('.')
""",
)
_cell(
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

_cell(
    "an error in a function of an earlier cell",
    "print('calling')\nf(0)",
    before="def inner(x):\n    return 1 / x\n\ndef f(x):\n    return inner(x)",
    raises=True,
)
_cell(
    "a warning in a function of an earlier cell",
    "f()",
    before="import warnings\ndef f():\n    warnings.warn('from earlier')",
)
_cell(
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
_cell(
    "values and modules of an earlier cell",
    "data['a'].append(k)\nprint(data, math.pi, np.sqrt(4))\ndata",
    before="import math\nimport numpy as np\ndata = {'a': [1, 2]}\nk = 3",
)
_cell("the last value of an earlier cell", "_ + 1", before="41")
_cell(
    "a frame of an earlier cell",
    "df.b = df.b * 2\ndf.head(1)",
    before="import pandas as pd\ndf = pd.DataFrame({'b': [1, 2]})",
)
_cell("a shell line with names", "!echo $x {y}", before="x, y = 'first', [1, 2]")
_cell("help on a function of an earlier cell", "f??", before="def f(a):\n    'Do it.'\n    return a", terminal=False)
_cell(
    "a result that is used afterwards", "[1, {'a': 2}]", after="print(type(_).__name__, Out[max(Out)] is _)\n_[1]['a']"
)
_cell("a coroutine function of an earlier cell", "await f(2)", before="async def f(n):\n    return n * 2")
