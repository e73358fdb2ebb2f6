"""Which names a cell needs: each cell with what is expected of it, written down."""

from __future__ import annotations

import sys

import pytest

from jupyter_gpu_platform.notebook import magic_arguments
from jupyter_gpu_platform.notebook.names import needed

#: The notebook's names; a cell needs those of them that it reads before it assigns them.
HERE = frozenset({"x", "y", "z", "n", "f", "g", "df", "data", "np", "C", "loss", "model", "cmd", "s", "e", "k"})

#: cell, needed for certain, needed perhaps
CELLS = [
    # order of statements
    ("x + 1", "x", ""),
    ("x = 1\nx + 1", "", ""),
    ("print(x)\nx = 1", "x", ""),
    ("x += 1", "x", ""),
    ("x = 1\nx += 1", "", ""),
    ("del x", "x", ""),
    ("x = 1\ndel x", "", ""),
    ("x = x + 1", "x", ""),
    ("x, y = y, x", "x y", ""),
    ("x = y = 0\nx + y", "", ""),
    ("x[0] = 1", "x", ""),
    ("x.a = y", "x y", ""),
    ("x: int = 1\nx", "", ""),
    ("x: C\nprint(x)", "C x", ""),
    ("(x := 1) + x", "", ""),
    ("x + (x := 1)", "x", ""),
    ("z and (x := 1)\nx", "z", "x"),
    ("[*x, *y]", "x y", ""),
    ("assert x, y", "x y", ""),
    ("'x' + \"y\"", "", ""),
    ("# x\n'''\ny\n'''", "", ""),
    ("", "", ""),
    ("x +", "", ""),
    ("return x", "x", ""),
    # branches
    ("if y:\n    x = 1\nx", "x y", ""),
    ("if y:\n    x = 1\nelse:\n    x = 2\nx", "y", ""),
    ("if y:\n    x = 1\nelse:\n    raise ValueError\nx", "y", ""),
    ("x = 1 if y else z", "y z", ""),
    ("for i in data:\n    loss = i\nloss", "data", "loss"),
    ("for x in data:\n    x", "data", ""),
    ("for i in data:\n    loss += i", "data loss", ""),
    ("while True:\n    x = 1\n    break\nx", "", ""),
    ("while y:\n    x = 1\nx", "y", "x"),
    ("try:\n    x = 1\nexcept ValueError:\n    x = 2\nx", "", ""),
    ("try:\n    x = 1\nexcept ValueError as e:\n    print(e)\nx", "", "x"),
    ("try:\n    pass\nexcept C:\n    y\nfinally:\n    z", "C y z", ""),
    ("with open(s) as x:\n    x.read()", "s", ""),
    ("match x:\n    case {'a': y}:\n        y\n    case [n, *z]:\n        n, z\n    case _:\n        k", "x k", ""),
    ("match x:\n    case 1:\n        y = 1\n    case _:\n        y = 2\ny", "x", ""),
    ("match x:\n    case C(a=y):\n        pass\ny", "x C y", ""),
    # functions and classes
    ("def f(): return x", "", ""),
    ("def f(): return x\nf()", "x", ""),
    ("def f(): return x\nx = 1\nf()", "", ""),
    ("def f(): return x\nf()\nx = 1", "x", ""),
    ("def f(): return g()\ndef g(): return x\nf()", "x", ""),
    ("def f(n): return f(n - 1) + x\nf(3)", "x", ""),
    ("def f(): return x\nh = [f]\nx = 1", "x", ""),
    ("def f(x=y): return x", "y", ""),
    ("def f(x: C) -> C: return x", "C", ""),
    ("@g\ndef f(): return x", "g x", ""),
    ("def f():\n    x = 1\n    def h(): return x + y\n    return h()\nf()", "y", ""),
    ("def f():\n    global x\n    x += 1\nf()", "x", ""),
    ("global x\nx += 1", "x", ""),
    ("f = lambda: x\nx = 1\nf()", "", ""),
    ("f = lambda: x\nf()", "x", ""),
    ("sorted(data, key=lambda a: a + k)", "data k", ""),
    ("class C:\n    a = x\n    b = a\n", "x", ""),
    ("class C:\n    def m(self): return x\n", "", ""),
    ("class C:\n    def m(self): return x\nC().m()", "x", ""),
    ("class C:\n    class D:\n        def m(self): return x\nC.D().m()", "x", ""),
    ("class D(C, metaclass=g): pass", "C g", ""),
    ("class C:\n    x = x\n", "x", ""),
    ("async def f():\n    await g(x)\nawait f()", "g x", ""),
    ("await g(x)", "g x", ""),
    ("async for x in data:\n    x", "data", ""),
    ("async with x as y:\n    y", "x", ""),
    # comprehensions
    ("[x for x in data]", "data", ""),
    ("[x for x in x]", "x", ""),
    ("[x * y for x in data if x > n]", "data y n", ""),
    ("{a: b for a, b in x.items() for c in b}", "x", ""),
    ("x = [(y := i) for i in data]\ny", "data", "y"),
    ("sum(i * k for i in range(n))", "k n", ""),
    ("[[x for x in row] for row in data]", "data", ""),
    # imports and names by string
    ("import x\nx.y", "", ""),
    ("import x.y\nx", "", ""),
    ("from x import y as z\nz", "", ""),
    ("from math import *\npi * n", "n", ""),
    ("f'{x} {y:>{n}} {z!r}'", "x y n z", ""),
    ("globals()['x']", "x", ""),
    ("eval('x + y')", "x y", ""),
    ("exec('x = y')\nx", "y", ""),
    ("df.query('a > @n')", "df n", ""),
    ("df.query('a > n')", "df", "n"),
    ("np.timeit('f(x)')", "np", "f x"),
    ("def f(): return df.query('a > @n')\nf()", "df n", ""),
    # magics
    ("%timeit f(x)", "f x", ""),
    ("%timeit -n 10 -r3 f(x)", "f x", ""),
    ("%timeit x = 1\n%timeit x", "x", ""),
    ("%time z = f(x)\nz", "f x", ""),
    ("%%time\ny = f(x)\ny", "f x", ""),
    ("%%timeit x = y\nf(x)", "y f", ""),
    ("%%capture e\nprint(x)", "x", ""),
    ("%%time\n%timeit f(x)", "f x", ""),
    ("!echo $x {y} $$z", "x y", ""),
    ("!echo {x + n} ${HOME}", "x n", ""),
    ("!awk '{print $1}' f.txt", "", ""),
    ("!ls -l", "", ""),
    ("x = !cat $s\nx", "s", ""),
    ("x = %sql $cmd\nx", "cmd", ""),
    ("%run $s {x}", "s x", ""),
    ("%cd $s", "s", ""),
    ("%matplotlib inline", "", ""),
    ("x?", "x", ""),
    ("x??", "x", ""),
    ("?x", "x", ""),
    ("%%bash\necho $x {y}", "", ""),
    ("%%bash -s $x --out y\necho z\n", "x", ""),
    ("%%writefile out.py\nprint(x)", "", ""),
    ("%%unknown\nx + y", "", "x y"),
    ("def f():\n    !echo $x\nf()", "x", ""),
    ("for i in data:\n    !echo $i {x}", "data x", ""),
]


def split(words: str) -> set[str]:
    return set(words.split())


@pytest.mark.parametrize(("cell", "reads", "maybe"), CELLS)
def test_a_cell_needs(cell: str, reads: str, maybe: str) -> None:
    names = needed(cell)
    # `!echo {y}` may not be an expression at all: certain or not makes no difference to small values.
    found = set(names.reads) & HERE, set(names.uncertain) & HERE
    expansions = {"y", "x", "n"} if cell.startswith(("!", "%run", "for i in data:\n    !")) else set()
    assert found[0] - expansions == split(reads) - expansions
    assert found[1] - expansions == split(maybe) - expansions
    assert found[0] | found[1] == split(reads) | split(maybe)


if sys.version_info >= (3, 12):  # before, a type statement is a syntax error

    def test_type_statements_assign() -> None:
        assert set(needed("type x = list[C]\nx").reads) & HERE == {"C"}


def test_reads_keep_the_order_of_the_cell() -> None:
    assert needed("y\nx\ny\nn").reads == ("y", "x", "n")


@pytest.mark.parametrize(
    ("cell", "writes", "deletes"),
    [
        ("x = 1\nfor y in z: pass\ndel x", "x y", "x"),
        ("def f(): pass\nclass C: pass\nimport a.b, c as d\nfrom p import q", "f C a d q", ""),
        ("%time z = f(x)", "z", ""),
        ("%timeit z = f(x)", "", ""),
        ("%%capture out\nx = 1", "x out", ""),
        ("%%bash --out lines\nls", "lines", ""),
        ("def f():\n    global x\n    x = 1", "f x", ""),
        ("[a for a in b]", "", ""),
        ("class C:\n    a = 1", "C", ""),
    ],
)
def test_a_cell_assigns(cell: str, writes: str, deletes: str) -> None:
    names = needed(cell)
    assert set(names.writes) == split(writes)
    assert set(names.deletes) == split(deletes)


@pytest.mark.parametrize(
    "cell",
    [
        "%timeit f(x)",
        "x = !cat $s",
        "%%time\ny = f(x)",
        "x?",
        "?x",
        "!echo $x",
        "for i in x:\n    !echo $i",
        "x = %m $n",
    ],
)
def test_without_ipython_the_lines_read_the_same(cell: str) -> None:
    plain, real = magic_arguments.plainly(cell), magic_arguments.to_python(cell)
    assert set(needed(plain).reads) == set(needed(real).reads)


def test_python_is_left_alone_without_ipython() -> None:
    cell = 'text = """\n!not a command\n%nor this\n"""\na %b'
    assert magic_arguments.plainly(cell) == cell


def test_a_deep_expression_needs_nothing_rather_than_failing() -> None:
    assert needed("+".join(["x"] * 50_000)).reads in ((), ("x",))


@pytest.mark.parametrize("cell", ["x is 1", "'\\d'", "def f(): return x is 'a', '\\d'\nf()", "%time x is 1"])
def test_warnings_about_the_code_are_left_to_the_job(cell: str, recwarn: pytest.WarningsRecorder) -> None:
    needed(cell)
    assert not recwarn.list
