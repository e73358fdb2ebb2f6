"""What libraries and widgets show."""

from __future__ import annotations

from ..transcripts import TIMES
from .cell import cell

# --- libraries

cell(
    "pandas",
    """
import pandas as pd
df = pd.DataFrame({'a': [1, 2.5], 'b': ['x', None]}, index=['i', 'j'])
display(df)
print(df)
df.describe()
""",
)
cell(
    "a pandas style",
    """
import pandas as pd
pd.DataFrame({'a': [1, 2]}).style.highlight_max(color='red')
""",
)
cell(
    "numpy",
    """
import numpy as np
print(np.arange(5) / 3)
np.eye(3)
""",
)
cell(
    "matplotlib",
    """
import matplotlib.pyplot as plt
fig, ax = plt.subplots(figsize=(2, 1))
ax.plot([1, 3, 2])
""",
    terminal=False,
)
cell(
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
cell(
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
cell(
    "plotly",
    """
import plotly.express as px
px.line(x=[1, 2], y=[3, 4])
""",
    terminal=False,
)
cell(
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
cell(
    "tqdm in text",
    """
from tqdm import tqdm
for i in tqdm(range(3), mininterval=0, miniters=1, ncols=60, bar_format='{l_bar}{bar}| {n_fmt}/{total_fmt}'):
    pass
""",
)
cell(
    "tqdm.auto",
    """
from tqdm.auto import tqdm
for i in tqdm(range(3), mininterval=0, miniters=1, desc='auto'):
    pass
""",
    TIMES,
    terminal=False,
)
cell(
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

cell(
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
cell(
    "a widget of widgets",
    """
import ipywidgets as w
box = w.VBox([w.Text('t'), w.HBox([w.Button(description='b'), w.Checkbox(True)]), w.Dropdown(options=[('one', 1)])])
box.children[0].value = 'changed'
box
""",
    terminal=False,
)
cell(
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
cell(
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
cell(
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
cell(
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
cell(
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
