"""What a cell takes along: each case with what was here before, the cell, what goes along and what it prints there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.notebook.capture import Capture, capture
from jupyter_gpu_platform.notebook.replay import FarResult

MIB = 2**20


class Case(NamedTuple):
    """A cell and what is expected of it."""

    #: earlier cells
    before: str
    cell: str
    #: the names that go along
    sent: str
    #: what the cell prints there; None: not run (magics)
    prints: str | None = None
    options: dict[str, Any] = {}


CASES = {
    "a number": Case("x = 3", "print(x)", "x", "3"),
    "only what is read": Case("x = 3; y = 4", "print(y)", "y", "4"),
    "nothing": Case("x = 3", "x = 4; print(x)", "", "4"),
    "builtins": Case("x = 3", "print(len('ab'))", "", "2"),
    "a builtin that was redefined": Case("def len(a): return 7", "print(len('ab'))", "len", "7"),
    "in-place addition": Case("x = 3", "x += 1; print(x)", "x", "4"),
    "deleted": Case("x = 3", "del x; print('x' in globals())", "x", "False"),
    "one branch assigns": Case("x = 3; y = 0", "if y:\n    x = 9\nprint(x)", "x y", "3"),
    "loop variable of old": Case("i = 9", "for i in range(2): pass\nprint(i)", "i", "1"),
    "module": Case("import math", "print(math.floor(2.5))", "math", "2"),
    "module under another name": Case("import math as m", "print(m.floor(2.5))", "m", "2"),
    "submodule by its package": Case(
        "import xml.dom.minidom",
        "print(xml.dom.minidom.parseString('<a/>').documentElement.tagName)",
        "xml",
        "a",
    ),
    "function of a module": Case("from math import floor", "print(floor(2.5))", "floor", "2"),
    "function": Case("def f(a): return a * 2", "print(f(4))", "f", "8"),
    "function and its globals": Case("k = 5\ndef f(a): return a * k", "print(f(2))", "f k", "10"),
    "functions through functions": Case(
        "k = 5\ndef h(): return k\ndef g(): return h()\ndef f(): return g()", "print(f())", "f g h k", "5"
    ),
    "recursive function": Case("def f(n): return n and n + f(n - 1)", "print(f(4))", "f", "10"),
    "functions that call each other": Case(
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
        "print(even(10))",
        "even odd",
        "True",
    ),
    "a later value of a function's global": Case(
        "k = 1\ndef f(): return k", "k = 2\nprint(f())", "f k", "2"
    ),
    "function defined and used in the cell": Case("k = 5", "def f(): return k\nprint(f())", "k", "5"),
    "function defined and not used": Case("k = 5", "def f(): return k\nprint(1)", "", "1"),
    "closure": Case("def make(n):\n    return lambda: n\nf = make(7)", "print(f())", "f", "7"),
    "lambda": Case("k = 3; f = lambda a: a + k", "print(f(1))", "f k", "4"),
    "partial": Case(
        "import functools\nk = 2\ndef f(a, b): return a * b * k\np = functools.partial(f, 3)",
        "print(p(4))",
        "k p",
        "24",
    ),
    "default that is a function": Case("def g(): return 3\ndef f(h=g): return h()", "print(f())", "f", "3"),
    "decorated": Case(
        "import functools\ncalls = []\n"
        "def count(f):\n    @functools.wraps(f)\n    def w(*a):\n        calls.append(a)\n        return f(*a)\n"
        "    return w\n@count\ndef f(a): return a",
        "print(f(1), len(calls))",
        "calls f",
        "1 1",
    ),
    "class": Case("k = 2\nclass C:\n    def m(self): return k", "print(C().m())", "C k", "2"),
    "instance": Case("class C:\n    def __init__(self): self.a = 6\nc = C()", "print(c.a)", "c", "6"),
    "instance whose method needs a global": Case(
        "k = 2\nclass C:\n    def m(self): return helper(k)\ndef helper(a): return a + 1\nc = C()",
        "print(c.m())",
        "c helper k",
        "3",
    ),
    "subclass": Case("class A:\n    v = 1\nclass B(A): pass", "print(B.v)", "B", "1"),
    "class with super": Case(
        "class A:\n    def m(self): return 1\nclass B(A):\n    def m(self): return super().m() + 1",
        "print(B().m())",
        "B",
        "2",
    ),
    "shared list": Case("a = []; b = [a]", "a.append(1); print(b)", "a b", "[[1]]"),
    "list that holds itself": Case("a = []; a.append(a)", "print(a[0] is a)", "a", "True"),
    "array": Case("import numpy as np\na = np.arange(4)", "print(np.sum(a))", "a np", "6"),
    "frame": Case("import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})", "print(df.a.sum())", "df", "3"),
    "variable of a query": Case(
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}); n = 1", "print(len(df.query('a > @n')))", "df n", "1"
    ),
    "variable of a query in a function": Case(
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}); n = 1",
        "def f(): return len(df.query('a > @n'))\nprint(f())",
        "df n",
        "1",
    ),
    "variable of a query in a function of an earlier cell": Case(
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}); n = 1; m = 5\n"
        "def f(m): return len(df.query('a > @n and a < @m'))",
        "print(f(3))",
        "df f n",
        "1",
    ),
    "eval": Case("x = 1; y = 2", "print(eval('x + y'))", "x y", "3"),
    "f-string": Case("x = 1; w = 4", "print(f'{x:>{w}}')", "w x", "   1"),
    "comprehension": Case("x = [1, 2]; k = 3", "print([i * k for i in x])", "k x", "[3, 6]"),
    "walrus": Case("x = 1", "print((x := 2) + x)", "", "4"),
    "annotation": Case("T = int", "v: T = 3\nprint(v)", "T", "3"),
    "star import": Case("n = 2", "from math import *\nprint(floor(n + 0.5))", "n", "2"),
    "match": Case("x = {'k': 1}", "match x:\n    case {'k': v}: print(v)", "x", "1"),
    "try": Case("x = 1", "try:\n    y = x / 0\nexcept ZeroDivisionError as e:\n    print('caught')", "x", "caught"),
    "named with --in": Case("x = 1; y = 2", "print(eval('x' + '+y'))", "x y", "3", {"only": ("x", "y")}),
    "--in none": Case("x = 1", "print('x' in globals())", "", "False", {"only": ()}),
    "--in leaves out": Case("x = 1; y = 2", "print(x, 'y' in globals() and y)", "x", "1 False", {"only": ("x",)}),
    "--in is exact about functions too": Case(
        "k = 1\ndef f(): return k", "try:\n    f()\nexcept NameError as e:\n    print(e)", "f",
        "name 'k' is not defined", {"only": ("f",)},
    ),
    "extra": Case("x = 1; y = 2", "print(x, 'y' in globals())", "x y", "1 True", {"extra": ("y",)}),
    "perhaps needed and small": Case("x = 1", "for i in []: x = 2\nprint(x)", "x", "1"),
    "perhaps needed and large": Case(
        "x = bytes(2 * 2**20)", "for i in [1]: x = 2\nprint(x)", "", "2"
    ),
    "perhaps needed and impossible": Case(
        "import threading\nx = threading.Lock()", "for i in [1]: x = 2\nprint(x)", "", "2"
    ),
    "overwritten for a function and impossible": Case(
        "import threading\nk = threading.Lock()\ndef f(): return k", "k = 2\nprint(f())", "f", "2"
    ),
    "plain data": Case(
        "import math\nx = {'a': (1, [2.5, None])}",
        "print(x, math.floor(2.5))",
        "math x",
        "{'a': (1, [2.5, None])} 2",
        {"encoding": "json"},
    ),
    "the last result": Case("_ = 5; _3 = 6", "print(_ + _3)", "_ _3", "11"),
    "no result yet": Case("_ = ''", "print('_' in globals() and _)", "", "False"),
    "all results by name": Case("Out = {1: 2}", "print(Out[1])", "Out", "2", {"only": ("Out",)}),
    "the shell's own": Case("In = []; exit = 1; _i3 = 'x'; quit = 2", "In, exit, _i3, quit; print(1)", ""),
    "hidden with their value": Case("a = 1; b = 2", "a, b", "b", None, {"hidden": {"a": 1, "b": 3}}),
    "%timeit": Case("k = 2\ndef f(x): return k\nx = 1", "%timeit -n 1 f(x)", "f k x"),
    "%%time": Case("def f(x): return x\nx = 1", "%%time\ny = f(x)", "f x"),
    "!echo": Case("x = 1; y = 2; z = 3", "!echo $x {y} $$z", "x y"),
    "assigned from a command": Case("p = '/'", "files = !ls $p\nprint(files)", "p"),
    "%%bash": Case("x = 1", "%%bash\necho $x", ""),
    "help": Case("x = 1", "x?", "x"),
    "no Python at all": Case("x = 1", "x +", ""),
}  # fmt: skip


def captured(case: Case, here: dict[str, Any]) -> Capture:
    return capture(here, case.cell, **case.options)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_cell_takes_along(case: Case, notebook: Any, far: Any) -> None:
    taken = captured(case, notebook(case.before))
    assert sorted(taken.sent) == sorted(case.sent.split())
    if case.prints is not None:
        answer, _ = far.run(taken.packer, case.cell)
        assert answer["error"] == ""
        assert answer["stdout"] == case.prints + "\n"


REFUSED = {
    "lock": ("import threading\nx = threading.Lock()", "`x` can't be sent: it is a lock", "in the cell"),
    "generator": ("x = (i for i in [1])", "`x` can't be sent: it is a generator", "list(…)"),
    "coroutine": ("async def f(): pass\nx = f()\nx.close()", "it is a coroutine", "in the cell"),
    "file": ("import os\nx = open(os.devnull, 'w')\nx.close()", "it is an open file", "open it in the cell"),
    "socket": ("import socket\nx = socket.socket()\nx.close()", "it is a network connection", "connect in the cell"),
    "thread": ("import threading\nx = threading.Thread()", "it is a running thread", "start it in the cell"),
    "database": (
        "import sqlite3\nx = sqlite3.connect(':memory:')\nx.close()",
        "it is an open connection to a database",
        "connect in the cell",
    ),
    "inside a dict": (
        "import threading\nx = {'a': [1, {'b': threading.Lock()}]}",
        "`x` (in `x['a'][1]['b']`) can't be sent: that is a lock",
        "in the cell",
    ),
    "inside an object": (
        "import threading\nclass M:\n    def __init__(self): self.guard = threading.RLock()\nx = M()",
        "`x` (in `x.guard`) can't be sent: that is a lock",
        "in the cell",
    ),
    "inside a closure": (
        "import threading\ndef make():\n    lock = threading.Lock()\n    return lambda: lock\nx = make()",
        "`x` (in `x's variable lock`) can't be sent: that is a lock",
        "in the cell",
    ),
    "its own reason": (
        "class M:\n    def __reduce__(self): raise ValueError('bound to this licence')\nx = M()",
        "it is M (bound to this licence)",
        "leave it out with --in",
    ),
    "through a function": (
        "import threading\nlock = threading.Lock()\ndef x(): return lock",
        "`lock` can't be sent: it is a lock, which belongs to this process (`x` needs it)",
        "in the cell",
    ),
}


@pytest.mark.parametrize(("before", "why", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_sent_is_named_with_the_fix(before: str, why: str, fix: str, notebook: Any) -> None:
    with pytest.raises(errors.NotPicklable) as refused:
        capture(notebook(before), "x")
    assert why in refused.value.message
    assert fix in refused.value.hint.lower()


def test_one_large_array_is_refused_by_its_size(notebook: Any) -> None:
    here = notebook("import numpy as np\ndf = np.zeros((3, 2**20)); n = 1")
    with pytest.raises(errors.CaptureTooLarge) as refused:
        capture(here, "df, n", limit=8 * MIB)
    assert refused.value.message == "`df` is 24 MiB (limit 8 MiB)"
    assert "--in" in refused.value.hint


def test_several_arrays_that_are_too_large_together_are_named(notebook: Any) -> None:
    here = notebook("import numpy as np\na = np.zeros(2**19); b = np.zeros(2**20); c = a")
    with pytest.raises(
        errors.CaptureTooLarge, match=r"12 MiB \(limit 10 MiB\), most of it `b` \(8 MiB\), `a` \(4 MiB\)"
    ):
        capture(here, "a, b, c", limit=10 * MIB)
    # What two names share counts once.
    assert capture(here, "a, c", limit=5 * MIB).sent == ("a", "c")


def test_a_limit_that_only_the_pickle_reaches_is_kept(notebook: Any) -> None:
    here = notebook("x = [{'number': i} for i in range(200_000)]; y = 1")
    with pytest.raises(errors.CaptureTooLarge, match=r"`x` is .*limit 1 MiB"):
        capture(here, "y, x", limit=MIB)


def test_plain_data_names_the_part_that_is_none(notebook: Any) -> None:
    here = notebook("x = {'a': [1, {2, 3}]}")
    with pytest.raises(errors.NotPicklable, match=r"`x\['a'\]\[1\]` is of type set"):
        capture(here, "x", encoding="json")


def test_plain_data_refuses_code(notebook: Any) -> None:
    with pytest.raises(
        errors.NotPicklable, match="`f` can't be sent as plain data: it is code of this notebook"
    ) as refused:
        capture(notebook("def f(): pass"), "f()", encoding="json")
    assert "Define it in the cell" in refused.value.hint


def test_a_result_that_stayed_in_its_job_is_not_sent_as_its_picture() -> None:
    here: dict[str, Any] = {"_": FarResult({"text/plain": "7"}, {})}
    here["x"] = here["_"]
    assert "its value stayed in the job" in capture(here, "_ + 1").left_out["_"]
    with pytest.raises(errors.NotPicklable, match="its value stayed in the job"):
        capture(here, "x + 1")


@pytest.mark.parametrize("value", ["{1: 2}", "b'a'", "1j", "object()", "[{'__tuple__': 1}]"])
def test_plain_data_refuses_what_would_change_on_its_way(value: str, notebook: Any) -> None:
    with pytest.raises(errors.NotPicklable, match="plain data"):
        capture(notebook(f"x = {value}"), "x", encoding="json")


def test_a_name_that_is_not_there_is_refused_with_the_nearest(notebook: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="no `modle`") as refused:
        capture(notebook("model = 1"), "1", only=("modle",))
    assert "`model`" in refused.value.hint


def test_what_was_left_out_and_what_is_missing_are_told(notebook: Any) -> None:
    here = notebook("x = bytes(2 * 2**20)")
    taken = capture(here, "for i in data: x = 1\nprint(x, len([]))")
    assert taken.left_out == {"x": "it is 2 MiB and only perhaps needed"}
    assert taken.missing == ("data",)


def test_what_goes_along_is_described_without_contents(notebook: Any) -> None:
    here = notebook("import math\nimport pandas as pd\ndf = pd.DataFrame({'a': range(1000)})\ntoken = 'secret'; n = 3")
    lines = capture(here, "math, df, token, n").lines()
    assert [line.split(",")[0] for line in lines] == ["df: pandas.DataFrame", "token: str", "n: int"]
    assert "1,000 rows × 1 columns" in lines[0]
    assert "secret" not in "".join(lines)
    assert "6 characters" in lines[1]
    assert "n: int, 3," in lines[2]


def test_only_code_needs_the_same_python(notebook: Any) -> None:
    here = notebook("import math\nimport numpy as np\na = np.zeros(3)\ndef f(): pass")
    assert not capture(here, "a, math").python_needed
    assert capture(here, "f").python_needed


def test_what_is_sent_is_what_the_reference_says(notebook: Any) -> None:
    taken = capture(notebook("x = list(range(1000))"), "x")
    data = b"".join(bytes(chunk) for chunk in taken.chunks())
    assert taken.ref is not None
    assert len(data) == taken.ref.size
    assert capture({}, "x").ref is None


def test_capturing_needs_no_ipython() -> None:
    code = (
        "import sys; sys.modules['IPython'] = None\n"
        "from jupyter_gpu_platform.notebook import capture, returning\n"
        "print(sorted(capture.capture({'f': len, 'x': 'ab'}, '%timeit f(x)').sent))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['f', 'x']\n"
