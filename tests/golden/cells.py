"""The cells whose messages must be the same here and in a job."""

from __future__ import annotations

from dataclasses import dataclass

from .transcripts import DEPTH, STREAMS, TEXT, TIMES

MAGIC = "%%gpu_run\n"

#: Why a cell is left out of a host.
ENDS_THE_RUN = "papermill stops at the first error: it has a test of its own"
KERNEL_ONLY = "libraries show another form in a terminal; a job's shell is always a kernel"


@dataclass(frozen=True)
class Cell:
    """One cell.

    :param code: what is run, here as it is, there under the magic.
    :param above: lines above the magic's own.
    :param before: a cell that both kernels run first, as it is.
    :param after: a cell that both kernels run afterwards, as it is; it is compared too.
    :param marks: rules of `transcripts.NORMALISED` that hold for this cell.
    :param terminal: it makes sense in plain IPython too.
    """

    name: str
    code: str
    above: str = ""
    before: str = ""
    after: str = ""
    marks: frozenset[str] = frozenset()
    terminal: bool = True

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
) -> None:
    assert name not in CELLS
    # The last line ends as in a notebook: without a newline.
    CELLS[name] = Cell(name, code.strip("\n"), above, before, after, frozenset(marks), terminal)


# --- text

_cell("text on one stream", "print('one')\nprint('two', 'three', sep='\\t')\nprint()\nprint('no newline', end='')")
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
    "import sys\nfor i in range(3):\n    print('out', i)\n    display(i)\n    print('err', i, file=sys.stderr)\n    display(-i)",
)
_cell("carriage returns", "for i in range(0, 101, 20):\n    print(f'\\r{i:3}%', end='', flush=True)\nprint('\\rdone')")
_cell("control characters", "print('\\x1b[31mred\\x1b[0m \\a \\b \\x0c \\x00 tab\\t end')")
_cell("unicode", "print('ünïcödé 漢字 🚀👩‍🚀 עברית e\\u0301 \\u2028 \\u200b|')\n'🚀'")
_cell("ten megabytes", "for i in range(100_000):\n    print(f'{i:06} ' + 'x' * 92)")
_cell("one long line", "print('y' * 3_000_000)")
_cell("bytes on stdout", "import os\nos.write(1, b'\\xff\\xfe plain \\x80\\n')\nimport time\ntime.sleep(0.3)", terminal=False)
_cell("write and writelines", "import sys\nsys.stdout.writelines(['a\\n', 'b\\n'])\nsys.stderr.write('c\\n')\nsys.stdout.write('d')", STREAMS)
_cell("an exotic print", "import sys\nprint('x', file=sys.stdout, flush=True)\nsys.stdout.isatty(), sys.stdout.encoding, sys.stdout.writable()", terminal=False)
_cell("redirected text", "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n    print('hidden')\nprint(f.getvalue().upper())")

# --- last expressions, and what remembers them

_cell("a last expression", "6 * 7", after="_, Out[max(Out)], _ == 42 or type(_).__name__.startswith('Far')")
_cell("a silenced expression", "6 * 7;", after="sorted(Out) == sorted(Out)")
_cell("None", "None")
_cell("a long value", "list(range(2000))")
_cell("a dict and a set", "{'b': [1, {2}], 'a': {'nested': tuple(range(40))}}")
_cell("several results", "from IPython.core.interactiveshell import InteractiveShell\nInteractiveShell.ast_node_interactivity = 'all'\n1\n'two'\n3.0\nInteractiveShell.ast_node_interactivity = 'last_expr'")
_cell("text that looks like results", "print('Out[1]: 42')\n'Out[1]'")
_cell("the underscore within a cell", "7\n8\nprint(In[-1].splitlines()[-1])", terminal=False)
_cell("a value with a long repr", "class Long:\n    def __repr__(self):\n        return 'line\\n' * 50\nLong()")

# --- displays

_cell("several displays", "display(1, 'two', [3])\ndisplay()\nprint('after')")
_cell("a display with metadata", "display({'text/plain': 'x', 'text/html': '<b>x</b>'}, raw=True, metadata={'text/html': {'isolated': True}})")
_cell("update_display", "from IPython.display import HTML, update_display\nh = display(HTML('1'), display_id='fixed')\nh.update(HTML('2'))\nupdate_display('3', display_id='fixed')\nupdate_display('nobody', display_id='unknown')")
_cell("a display with a random id", "h = display('one', display_id=True)\ng = display('other', display_id=True)\nh.update('two')\ng.update('more')\nh.display('again')")
_cell("a display of an earlier cell is updated", "from IPython.display import update_display\nupdate_display('late', display_id='early')", before="h = display('early', display_id='early')")
_cell("clear_output", "from IPython.display import clear_output\nprint('a')\nclear_output()\nprint('b')\nclear_output(wait=True)\nprint('c')")
_cell("a display that counts", "from IPython.display import clear_output\nfor i in range(5):\n    clear_output(wait=True)\n    display(i)")
_cell("html, markdown, latex, svg, json, javascript", "from IPython.display import *\nfor kind in (HTML, Markdown, Latex, Javascript):\n    display(kind('<b>$x$</b>'))\ndisplay(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\ndisplay(JSON({'a': [1, None]}, expanded=True))\nMath(r'\\frac{a}{b}')")
_cell(
    "an image",
    "from IPython.display import Image\nimport base64\nImage(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='), width=5)",
)
_cell("audio, a frame, a file link", "from IPython.display import Audio, IFrame, FileLink\ndisplay(Audio(b'RIFF', autoplay=True))\ndisplay(IFrame('about:blank', 10, 10))\nFileLink('missing.txt')")
_cell(
    "reprs of one's own",
    """
class Rich:
    def _repr_html_(self):
        return "<i>rich</i>"
    def _repr_markdown_(self):
        return "*rich*", {"from": "here"}
    def _repr_png_(self):
        return b"\\x89PNG"
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
_cell("a repr that fails", "class Bad:\n    def _repr_html_(self):\n        raise ValueError('no html')\n    def __repr__(self):\n        return 'Bad()'\ndisplay(Bad())\nprint('goes on')\nBad()", terminal=False)
_cell("a display that fails and the cell too", "class Bad:\n    def __repr__(self):\n        raise ValueError('no repr')\ndisplay(Bad())\n1 / 0", terminal=False)
_cell("its own formatter", "get_ipython().display_formatter.formatters['text/html'].for_type(complex, lambda z: f'<b>{z}</b>')\n1j\n")
_cell("a published display", "get_ipython().display_pub.publish({'text/plain': 'p', 'application/x-own': 'y'}, metadata={'a': 1}, transient={'display_id': 'z'})")
_cell("ipykernel's own comm", "from comm import create_comm\nc = create_comm(target_name='mine', data={'x': 1}, metadata={'m': 1}, buffers=[b'\\x00\\xff'])\nc.send({'y': [2]}, buffers=[b'', memoryview(b'abc')])\nc.close({'bye': True})", terminal=False)

# --- libraries

_cell("pandas", "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2.5], 'b': ['x', None]}, index=['i', 'j'])\ndisplay(df)\nprint(df)\ndf.describe()")
_cell("a pandas style", "import pandas as pd\npd.DataFrame({'a': [1, 2]}).style.highlight_max(color='red')")
_cell("numpy", "import numpy as np\nprint(np.arange(5) / 3)\nnp.eye(3)")
_cell("matplotlib", "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(figsize=(2, 1))\nax.plot([1, 3, 2])", terminal=False)
_cell("several figures", "import matplotlib.pyplot as plt\nfor i in range(2):\n    plt.figure(figsize=(1, 1))\n    plt.plot([i, 1])\n    plt.show()\n    print('figure', i)\nplt.plot([1]);", terminal=False)
_cell("matplotlib as svg", "%config InlineBackend.figure_formats = ['svg']\n%matplotlib inline\nimport os\nos.environ['SOURCE_DATE_EPOCH'] = '0'\nimport matplotlib.pyplot as plt\nplt.rcParams['svg.hashsalt'] = 'x'\nplt.plot([1, 2])\nplt.gcf().set_size_inches(1, 1)\nplt.show()\n%config InlineBackend.figure_formats = ['png']", terminal=False)
_cell("plotly", "import plotly.express as px\npx.line(x=[1, 2], y=[3, 4])", terminal=False)
_cell("rich", "import rich\nrich.print('[bold]bold[/bold]', {'a': 1})\nfrom rich.table import Table\nt = Table('h')\nt.add_row('1')\nt", terminal=False)
_cell("tqdm in text", "from tqdm import tqdm\nfor i in tqdm(range(3), mininterval=0, miniters=1, ncols=60, bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt}'):\n    pass")
_cell("tqdm.auto", "from tqdm.auto import tqdm\nfor i in tqdm(range(3), mininterval=0, miniters=1, desc='auto'):\n    pass", TIMES, terminal=False)
_cell("tqdm.notebook with text", "from tqdm.notebook import tqdm, trange\nfor i in trange(2, mininterval=0, miniters=1):\n    for j in tqdm(range(2), leave=False, mininterval=0, miniters=1):\n        print(i, j, flush=True)", TIMES, terminal=False)

# --- widgets

_cell("a widget", "import ipywidgets as w\ns = w.IntSlider(value=3, description='n')\ndisplay(s)\ns.value = 7\ns", terminal=False)
_cell("a widget of widgets", "import ipywidgets as w\nbox = w.VBox([w.Text('t'), w.HBox([w.Button(description='b'), w.Checkbox(True)]), w.Dropdown(options=[('one', 1)])])\nbox.children[0].value = 'changed'\nbox", terminal=False)
_cell("an Output widget", "import ipywidgets as w\nout = w.Output()\ndisplay(out)\nwith out:\n    print('inside')\n    display('shown inside')\nprint('outside', flush=True)\nout.append_stdout('appended')", terminal=False)
_cell("an error in an Output widget", "import ipywidgets as w\nout = w.Output()\ndisplay(out)\nwith out:\n    1 / 0\nprint('goes on')", terminal=False)
_cell("interact", "from ipywidgets import interact\ndef f(x, y='a'):\n    print(x, y)\n    return x\ninteract(f, x=(0, 10), y=['a', 'b'])\nprint('after')", terminal=False)
_cell("a widget with bytes", "import ipywidgets as w\ni = w.Image(value=b'\\x89PNG' + bytes(300), format='png')\ndisplay(i)\ni.value = b'changed'\ni.close()", terminal=False)
_cell("widgets that are observed and linked", "import ipywidgets as w\na, b = w.IntText(1), w.IntText(2)\nw.jslink((a, 'value'), (b, 'value'))\na.observe(lambda change: print(change['new'], flush=True), 'value')\na.value = 5\nwith a.hold_sync():\n    a.value = 6\n    a.description = 'd'\nw.HBox([a, b])", terminal=False)

# --- errors

_cell("an error in a function", "def f(x):\n    y = x + 1\n    return 1 / (y - 1)\n\nprint('before')\nf(0)\nprint('never')")
_cell("an error with a cause", "try:\n    {}['k']\nexcept KeyError as error:\n    raise ValueError('outer') from error")
_cell("an error while handling one", "def inner():\n    raise KeyError('k')\ntry:\n    inner()\nexcept KeyError:\n    int('x')")
_cell("an error with a hidden cause", "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('alone') from None")
_cell("an exception group", "raise ExceptionGroup('several', [ValueError('a'), ExceptionGroup('inner', [KeyError('b')])])")
_cell("an error with notes", "error = ValueError('noted')\nerror.add_note('note one')\nerror.add_note('note two')\nraise error")
_cell("an error of a class of one's own", "class Odd(Exception):\n    def __str__(self):\n        return 'odd\\ntext ünï'\nraise Odd(1, 2)")
_cell("an error without a text", "assert 1 == 2")
_cell("a syntax error", "def f(:\n    pass")
_cell("an indentation error", "if True:\nprint(1)")
_cell("a syntax error in evaluated code", "eval('1 +')")
_cell("an unfinished string", "print('abc")
_cell("an error in a library", "import json\njson.loads('{')")
_cell("endless recursion", "def f(n):\n    return f(n + 1)\nf(0)", DEPTH)
_cell("an error that draws itself", "class Drawn(Exception):\n    def _render_traceback_(self):\n        return ['drawn', 'by itself']\nraise Drawn('x')")
_cell("a shown traceback, then text", "try:\n    1 / 0\nexcept ZeroDivisionError:\n    get_ipython().showtraceback()\nprint('goes on')\n3")
_cell("a printed traceback", "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()", terminal=False)
_cell("a KeyboardInterrupt of one's own", "raise KeyboardInterrupt('mine')")
_cell("sys.exit", "import sys\nprint('before')\nsys.exit()", STREAMS)
_cell("sys.exit with a number", "raise SystemExit(3)", STREAMS)
_cell("sys.exit with a text", "import sys\nsys.exit('bye')", STREAMS)
_cell("%tb after an error", "1 / 0", after="%tb", terminal=False)
_cell("an error and then values", "x = 5\nx / 0", after="print('next')")
_cell("a name that does not exist", "no_such_name + 1")
_cell("a warning", "import warnings\nwarnings.warn('careful')\nwarnings.warn('deprecated', DeprecationWarning)", terminal=False)
_cell("a warning made an error", "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')\n    warnings.warn('hard')", terminal=False)
_cell("a syntax warning", "x = 5\nx is 5", terminal=False)
_cell("logging", "import logging\nlogging.basicConfig(format='%(levelname)s %(name)s %(message)s', level='INFO', force=True)\nlogging.info('info')\nlogging.getLogger('mine').warning('warned')\nlogging.debug('hidden')")
_cell("an exception logged", "import logging\nlogging.basicConfig(format='%(message)s', force=True)\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.exception('failed')", terminal=False)
_cell("input without anybody", "input('name? ')", terminal=False)
_cell("getpass without anybody", "import getpass\ngetpass.getpass()", terminal=False)

# --- processes and threads

_cell("a shell line", "!echo from a shell; echo bad >&2\nfiles = !printf 'a\\nb\\n'\nfiles", TEXT)
_cell("a shell line that fails", "!exit 3\n_exit_code")
_cell("%%bash", "%%bash\necho one\necho two >&2\nseq 3", STREAMS)
_cell("%%bash that fails", "%%bash\necho before\nexit 4", STREAMS)
_cell("%%sh to a variable", "%%sh --out text\necho kept", after="'text' in globals() or True")
_cell("a subprocess", "import subprocess, time\nprint('before', flush=True)\nsubprocess.run(['sh', '-c', 'echo child; echo error >&2'])\ntime.sleep(0.3)\nprint('after')", TEXT, terminal=False)
_cell("a captured subprocess", "import subprocess\nsubprocess.run(['echo', 'x'], capture_output=True, text=True).stdout")
_cell("text from C", "import ctypes, time\nlibc = ctypes.CDLL(None)\nlibc.puts(b'from C')\nlibc.fflush(None)\ntime.sleep(0.3)", TEXT, terminal=False)
_cell("os.system", "import os, time\nstatus = os.system('echo system')\ntime.sleep(0.3)\nstatus", TEXT, terminal=False)
_cell("a thread", "import threading\ndef work():\n    print('in a thread')\n    display('shown by it')\nt = threading.Thread(target=work)\nt.start()\nt.join()\nprint('joined')", terminal=False)
_cell("threads in a pool", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n    print(sum(pool.map(lambda n: n * n, range(50))))")
_cell("an error in a thread", "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='mine')\nt.start()\nt.join()", terminal=False)
_cell("multiprocessing", "import multiprocessing, time\ndef work(n):\n    print('child', n)\ncontext = multiprocessing.get_context('fork')\nfor n in range(2):\n    p = context.Process(target=work, args=(n,))\n    p.start()\n    p.join()\nprint('exit', p.exitcode)\ntime.sleep(0.3)", TEXT, terminal=False)
_cell("a pool of processes", "import multiprocessing\ndef square(n):\n    return n * n\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n    values = pool.map(square, range(5))\nvalues")
_cell("a fork", "import os, time\npid = os.fork()\nif not pid:\n    os.write(1, b'child\\n')\n    os._exit(3)\nprint(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\ntime.sleep(0.3)", TEXT, terminal=False)

# --- asynchronous code

_cell("top-level await", "import asyncio\nprint('a')\nawait asyncio.sleep(0.01)\nprint('b')\nawait asyncio.sleep(0, 'value')")
_cell("asyncio.gather", "import asyncio\nasync def f(n):\n    await asyncio.sleep(n / 100)\n    print(n)\n    return n\nawait asyncio.gather(*[f(n) for n in (2, 1, 0)])")
_cell("async for and with", "import contextlib\nasync def numbers():\n    for n in range(3):\n        yield n\n@contextlib.asynccontextmanager\nasync def opened():\n    print('in')\n    yield 5\n    print('out')\nasync with opened() as n:\n    async for i in numbers():\n        print(n, i)\n[i async for i in numbers()]")
_cell("an error under await", "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise ValueError('async')\nawait f()", terminal=False)
_cell("asyncio.run", "import asyncio, warnings\nwarnings.simplefilter('ignore')\nasyncio.run(asyncio.sleep(0))", terminal=False)
_cell("create_task", "import asyncio\nasync def f():\n    print('in a task')\n    return 1\nt = asyncio.create_task(f())\nawait t\nt.result()", terminal=False)
_cell("create_task in a cell without await", "import asyncio\nasync def f():\n    pass\nt = asyncio.get_running_loop().create_task(f())\ntype(t).__name__", terminal=False)
_cell("nested awaits and threads", "import asyncio\nawait asyncio.to_thread(print, 'to a thread')\nasync with asyncio.timeout(5):\n    await asyncio.sleep(0)\nprint('ok')")
_cell("a task group that fails", "import asyncio\nasync def bad():\n    raise ValueError('x')\nasync with asyncio.TaskGroup() as group:\n    group.create_task(bad())", terminal=False)

# --- magics, help, payloads

_cell("%time and %timeit", "%time sum(range(10))\n%timeit -n1 -r1 pass", TIMES)
_cell("%%time", "%%time\nprint('timed')\n5", TIMES)
_cell("%%html and friends", "%%html\n<b>x</b>")
_cell("%%javascript", "%%javascript\nalert(1)")
_cell("%%latex", "%%latex\n$x$")
_cell("%%capture inside", "%%capture captured\nprint('hidden')\n5", after="'captured' in globals() or True")
_cell("%%capture inside, shown", "from IPython.utils.capture import capture_output\nwith capture_output() as c:\n    print('hidden')\n    display('too')\nc.show()\nlen(c.outputs)")
_cell("%%capture around", "print('hidden')\ndisplay('too')\n7", above="%%capture captured\n", after="captured.show()\nprint(len(captured.outputs))\n_ if False else 0")
_cell("%%writefile and %run", "%%writefile made.py\nprint('ran', __name__)", after="%run made.py")
_cell("%who and %whos", "number = 1\n%who", terminal=False)
_cell("%env and %pwd", "%env MINE=1\n%pwd")
_cell("magics called by name", "get_ipython().run_line_magic('time', '1 + 1')\nget_ipython().run_cell_magic('bash', '', 'echo by name')", TIMES, STREAMS)
_cell("a magic that does not exist", "%no_such_magic x")
_cell("a cell magic that does not exist", "%%no_such_magic\nx")
_cell("a magic of one's own", "from IPython.core.magic import register_line_magic\n@register_line_magic\ndef twice(line):\n    return line * 2\n%twice ab")
_cell("help", "len?", terminal=False)
_cell("help on a function of one's own, with source", "def mine(a, b=2):\n    'Do it.'\n    return a\nmine??", terminal=False)
_cell("help()", "help(len)")
_cell("a pattern", "*int*?", terminal=False)
_cell("the next input", "get_ipython().set_next_input('print(1)')\nprint('x')", terminal=False)
_cell("%load", "open('loaded.py', 'w').write('a = 1\\n')\n%load loaded.py", terminal=False)
_cell("the input's replacement", "get_ipython().set_next_input('x = 2', replace=True)", terminal=False)
_cell("only comments", "# nothing\n\n# at all")
_cell("blank lines and a trailing newline", "\n\nprint('x')\n\n\n")
_cell("a docstring and a lambda", "f = lambda x: x\nf.__doc__ = 'd'\nf")
_cell("environment", "import sys, os\nos.path.basename(sys.executable), sys.argv[1:] == sys.argv[1:], __name__, os.getcwd() == os.path.abspath('.')")
_cell("code with tabs and odd spaces", "if True:\n\tprint('tab')\n\n\nx = [\n  1,\n     2]\nx")
