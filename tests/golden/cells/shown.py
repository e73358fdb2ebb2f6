"""What cells print and display."""

from __future__ import annotations

from ..transcripts import STREAMS
from .cell import cell

# --- text

cell(
    "text on one stream",
    r"""
print('one')
print('two', 'three', sep='\t')
print()
print('no newline', end='')
""",
)
cell(
    "streams interleaved and flushed",
    """
import sys
for i in range(5):
    print("out", i); sys.stdout.flush()
    print("err", i, file=sys.stderr); sys.stderr.flush()
""",
)
cell(
    "streams interleaved",
    """
import sys
for i in range(100):
    print("out", i)
    print("err", i, file=sys.stderr)
""",
    STREAMS,
)
cell(
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
cell(
    "carriage returns",
    r"""
for i in range(0, 101, 20):
    print(f'\r{i:3}%', end='', flush=True)
print('\rdone')
""",
)
cell("control characters", "print('\\x1b[31mred\\x1b[0m \\a \\b \\x0c \\x00 tab\\t end')")
cell(
    "unicode",
    r"""
print('ünïcödé 漢字 🚀👩‍🚀 עברית e\u0301 \u2028 \u200b|')
'🚀'
""",
)
cell(
    "ten megabytes",
    """
for i in range(100_000):
    print(f'{i:06} ' + 'x' * 92)
""",
)
cell("one long line", "print('y' * 3_000_000)")
cell(
    "bytes on stdout",
    r"""
import os
os.write(1, b'\xff\xfe plain \x80\n')
import time
time.sleep(0.3)
""",
    terminal=False,
)
cell(
    "write and writelines",
    r"""
import sys
sys.stdout.writelines(['a\n', 'b\n'])
sys.stderr.write('c\n')
sys.stdout.write('d')
""",
    STREAMS,
)
cell(
    "an exotic print",
    """
import sys
print('x', file=sys.stdout, flush=True)
sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.writable()
""",
    terminal=False,
)
cell(
    "redirected text",
    """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as f:
    print('hidden')
print(f.getvalue().upper())
""",
)

# --- last expressions, and what remembers them

cell("a last expression", "6 * 7", after="_, Out[max(Out)], _ == 42 or type(_).__name__.startswith('Far')")
cell("a silenced expression", "6 * 7;", after="sorted(Out) == sorted(Out)")
cell("None", "None")
cell("a long value", "list(range(2000))")
cell("a dict and a set", "{'b': [1, {2}], 'a': {'nested': tuple(range(40))}}")
cell(
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
cell(
    "text that looks like results",
    """
print('Out[1]: 42')
'Out[1]'
""",
)
cell(
    "the underscore within a cell",
    """
7
8
print(In[-1].splitlines()[-1])
""",
    terminal=False,
)
cell(
    "a value with a long repr",
    r"""
class Long:
    def __repr__(self):
        return 'line\n' * 50
Long()
""",
)

# --- displays

cell(
    "several displays",
    """
display(1, 'two', [3])
display()
print('after')
""",
)
cell(
    "a display with metadata",
    """
display({'text/plain': 'x', 'text/html': '<b>x</b>'}, raw=True, metadata={'text/html': {'isolated': True}})
""",
)
cell(
    "update_display",
    """
from IPython.display import HTML, update_display
h = display(HTML('1'), display_id='fixed')
h.update(HTML('2'))
update_display('3', display_id='fixed')
update_display('nobody', display_id='unknown')
""",
)
cell(
    "a display with a random id",
    """
h = display('one', display_id=True)
g = display('other', display_id=True)
h.update('two')
g.update('more')
h.display('again')
""",
)
cell(
    "a display of an earlier cell is updated",
    """
from IPython.display import update_display
update_display('late', display_id='early')
""",
    before="h = display('early', display_id='early')",
)
cell(
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
cell(
    "a display that counts",
    """
from IPython.display import clear_output
for i in range(5):
    clear_output(wait=True)
    display(i)
""",
)
cell(
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
cell(
    "an image",
    """
from IPython.display import Image
import base64
data = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
Image(base64.b64decode(data), width=5)
""",
)
cell(
    "audio, a frame, a file link",
    """
from IPython.display import Audio, IFrame, FileLink
display(Audio(b'RIFF', autoplay=True))
display(IFrame('about:blank', 10, 10))
FileLink('missing.txt')
""",
)
cell(
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
cell(
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
cell(
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
cell(
    "its own formatter",
    """
get_ipython().display_formatter.formatters['text/html'].for_type(complex, lambda z: f'<b>{z}</b>')
1j
""",
)
cell(
    "a published display",
    """
data = {'text/plain': 'p', 'application/x-own': 'y'}
get_ipython().display_pub.publish(data, metadata={'a': 1}, transient={'display_id': 'z'})
""",
)
cell(
    "ipykernel's own comm",
    r"""
from comm import create_comm
c = create_comm(target_name='mine', data={'x': 1}, metadata={'m': 1}, buffers=[b'\x00\xff'])
c.send({'y': [2]}, buffers=[b'', memoryview(b'abc')])
c.close({'bye': True})
""",
    terminal=False,
)
