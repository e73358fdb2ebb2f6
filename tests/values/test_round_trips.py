"""Values that go to another process and come back: what must be true of them there, and here afterwards."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import jupyter_gpu_platform.runner
from jupyter_gpu_platform.notebook.returning import LazyValue
from jupyter_gpu_platform.runner.values import CannotLoad, CannotPack, Packer, Unpacked, summary

MIB = 2**20


class Trip(NamedTuple):
    """A round trip."""

    before: str
    sent: str
    #: runs there; prints what is expected of the values there
    there: str
    prints: str
    back: str
    #: a condition on the values back, run here: `old` is the notebook, `new` what came back
    true: str
    encoding: str = "pickle"


TRIPS = {
    "slots of a base and of its subclass": Trip(
        "class A:\n    __slots__ = ()\nclass B(A):\n    __slots__ = ('x', '_y')\nb = B(); b.x = 1; b._y = 2",
        "b",
        "print(b.x, b._y, hasattr(b, '__dict__'))",
        "1 2 False",
        "b",
        "type(new['b']) is old['B'] and new['b']._y == 2",
    ),
    "dataclass with slots": Trip(
        "import dataclasses\n@dataclasses.dataclass(slots=True, frozen=True)\nclass P:\n    x: int\np = P(1)",
        "p",
        "print(p, hasattr(p, '__dict__'), hash(p) == hash(type(p)(1)))",
        "P(x=1) False True",
        "p",
        "new['p'] == old['p']",
    ),
    "plain values": Trip(
        "a = 1; b = 'x'; c = [None, True, 2.5, 1j, b'z', (1,), {2}, frozenset([3])]",
        "a b c",
        "print(a, b, c)",
        "1 x [None, True, 2.5, 1j, b'z', (1,), {2}, frozenset({3})]",
        "a b c",
        "all(new[k] == old[k] for k in 'abc')",
    ),
    "array": Trip(
        "import numpy as np\na = np.arange(6.).reshape(2, 3)",
        "a",
        "a[0, 0] = 9; print(a.shape, a.dtype, a.flags.writeable)",
        "(2, 3) float64 True",
        "a",
        "new['a'][0, 0] == 9 and new['a'].flags.writeable and old['a'][0, 0] == 0",
    ),
    "array of 80 MB": Trip(
        "import numpy as np\na = np.arange(10_000_000.)",
        "a",
        "a += 1; print(a[-1], a.flags.writeable, a.flags.aligned)",
        "10000000.0 True True",
        "a",
        "new['a'][0] == 1 and (new['a'].__setitem__(0, 5), new['a'][0] == 5)[1] and new['a'].nbytes == 80_000_000",
    ),
    "arrays in Fortran's order, sliced, read-only, empty": Trip(
        "import numpy as np\nf = np.asfortranarray(np.ones((300, 300))); s = np.arange(90_000)[::2]\n"
        "r = np.arange(9000.); r.flags.writeable = False; e = np.zeros((0, 3))",
        "f s r e",
        "print(f.flags.f_contiguous, s[-1], r.flags.writeable, e.shape)",
        "True 89998 False (0, 3)",
        "f s r e",
        "new['s'][1] == 2 and new['f'].sum() == 90_000 and not new['r'].flags.writeable and new['e'].shape == (0, 3)",
    ),
    "frame": Trip(
        "import pandas as pd\ndf = pd.DataFrame({'a': range(5000), 't': 'x', 'c': pd.Categorical(['u', 'v'] * 2500)})",
        "df",
        "df['b'] = df.a * 2; print(df.c.dtype, len(df))",
        "category 5000",
        "df",
        "list(new['df'].columns) == ['a', 't', 'c', 'b'] and new['df'].b.sum() == 2 * old['df'].a.sum()",
    ),
    "two names of one object": Trip(
        "a = [1]; b = {'a': a}",
        "a b",
        "a.append(2); print(b['a'] is a)",
        "True",
        "a b",
        "new['b']['a'] is new['a'] and new['a'] == [1, 2]",
    ),
    "two names of one array": Trip(
        "import numpy as np\na = np.zeros(5000); b = [a]",
        "a b",
        "a[0] = 1; print(b[0] is a)",
        "True",
        "a b",
        "new['b'][0] is new['a'] and new['a'][0] == 1",
    ),
    "objects in a circle": Trip(
        "class Node: pass\na = Node(); b = Node(); a.next = b; b.next = a",
        "a b",
        "print(a.next is b, b.next is a, type(a) is type(b))",
        "True True True",
        "a",
        "new['a'].next.next is new['a'] and type(new['a']) is old['Node']",
    ),
    "function": Trip(
        "k = 2\ndef f(a, *, b=3):\n    'words'\n    return a * b * k\nf.mark = 7",
        "f",
        "k = 5; print(f(1), f.__doc__, f.mark, f.__globals__ is globals())",
        "15 words 7 True",
        "f",
        "new['f'](1) == 6 and new['f'].__globals__ is old",
    ),
    "recursive function that is redefined": Trip(
        "def f(n): return 1 if n == 0 else n * f(n - 1)",
        "f",
        "old = f\ndef f(n): return 100\nprint(old(2))",
        "200",
        "",
        "True",
    ),
    "closures that share a variable": Trip(
        "def make():\n    n = 0\n    def inc():\n        nonlocal n\n        n += 1\n    return inc, lambda: n\n"
        "inc, get = make()",
        "inc get",
        "inc(); inc(); print(get())",
        "2",
        "inc get",
        "(new['inc'](), new['get']())[1] == 3 and old['get']() == 0",
    ),
    "closure that calls itself": Trip(
        "def make():\n    def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n    return fib\nf = make()",
        "f",
        "print(f(10))",
        "55",
        "f",
        "new['f'](10) == 55",
    ),
    "generator function, coroutine function": Trip(
        "def g():\n    yield 1\nasync def c(): return 2",
        "g c",
        "import asyncio\nprint(list(g()), asyncio.run(c()))",
        "[1] 2",
        "g c",
        "list(new['g']()) == [1]",
    ),
    "class that is here stays as it is": Trip(
        "class C:\n    v = 1\n    def m(self): return 'here'\nc = C()",
        "c",
        "type(c).m = lambda self: 'there'; type(c).v = 2; c.n = 3; print(c.m(), c.v)",
        "there 2",
        "c",
        "type(new['c']) is old['C'] and new['c'].m() == 'here' and new['c'].v == 1 and new['c'].n == 3",
    ),
    "class made there": Trip(
        "",
        "",
        "class New:\n    def m(self): return 4\nn = New(); print(n.m())",
        "4",
        "n New",
        "new['n'].m() == 4 and type(new['n']) is new['New']",
    ),
    "class redefined there": Trip(
        "class C:\n    def m(self): return 1\n",
        "C",
        "class C:\n    def m(self): return 2\nc = C(); print(c.m())",
        "2",
        "c C",
        "new['c'].m() == 2 and new['C'] is not old['C'] and old['C']().m() == 1",
    ),
    "dataclass": Trip(
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n"
        "    y: list = dataclasses.field(default_factory=list)\n"
        "p = P(1)",
        "p P",
        "p.y.append(P(2)); print(p, p == P(1, [P(2)]))",
        "P(x=1, y=[P(x=2, y=[])]) True",
        "p",
        "new['p'] == old['P'](1, [old['P'](2)])",
    ),
    "enum": Trip(
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\ne = E.B",
        "e E",
        "print(e is E.B, E(1))",
        "True E.A",
        "e E",
        "new['e'] is old['E'].B and new['E'] is old['E']",
    ),
    "named tuples": Trip(
        "import collections, typing\nN = collections.namedtuple('N', 'a b')\n"
        "class T(typing.NamedTuple):\n    a: int\n    b: int = 2\nn = N(1, 2); t = T(1)",
        "n t",
        "print(n, t, n._replace(a=3))",
        "N(a=1, b=2) T(a=1, b=2) N(a=3, b=2)",
        "n t",
        "type(new['n']) is old['N'] and type(new['t']) is old['T'] and new['t'] == (1, 2)",
    ),
    "class with slots, property, static and class methods": Trip(
        "class C:\n    __slots__ = ('a',)\n    def __init__(self): self.a = 1\n    @property\n"
        "    def p(self): return self.a + 1\n"
        "    @staticmethod\n    def s(): return 3\n    @classmethod\n    def c(cls): return cls.__name__\nx = C()",
        "x",
        "print(x.p, x.s(), x.c())",
        "2 3 C",
        "x",
        "new['x'].p == 2 and type(new['x']) is old['C']",
    ),
    "abstract base, metaclass, generic": Trip(
        "import abc, typing\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\n"
        "class M(type):\n    tag = 5\n"
        "X = typing.TypeVar('X')\nclass B(A):\n    def m(self): return 1\n"
        "class G(typing.Generic[X], metaclass=abc.ABCMeta): pass\n"
        "class W(metaclass=M): pass\nb = B()",
        "b G W",
        "print(b.m(), W.tag, G[int].__origin__ is G)",
        "1 5 True",
        "b",
        "isinstance(new['b'], old['A'])",
    ),
    "exception": Trip(
        "class Bad(ValueError):\n    def __init__(self, code): super().__init__(f'code {code}'); self.code = code\n"
        "    def __reduce__(self): return Bad, (self.code,)\ne = Bad(4)",
        "e Bad",
        "print(e, isinstance(e, ValueError), e.code)",
        "code 4 True 4",
        "e",
        "type(new['e']) is old['Bad'] and new['e'].code == 4",
    ),
    "modules, partials, methods": Trip(
        "import os.path, functools, operator\n"
        "p = functools.partial(max, 3); u = 'ab'.upper; i = operator.itemgetter(1)",
        "os p u i",
        "print(os.path.basename('/x/y'), p(1), u(), i('xy'))",
        "y 3 AB y",
        "p os",
        "new['p'](5) == 5 and new['os'] is old['os']",
    ),
    "dates, paths, decimals, ranges, slices": Trip(
        "import datetime, pathlib, decimal, uuid, re, collections\n"
        "d = [datetime.date(2024, 1, 2), pathlib.Path('a') / 'b',"
        " decimal.Decimal('1.10'), range(3), re.compile('a+'), collections.Counter('aab'),"
        " collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.deque([1], maxlen=2)]",
        "d",
        "print(d[0].year, d[1].name, d[2], d[4].pattern, d[5]['a'], d[7]['new'], d[8].maxlen)",
        "2024 b 1.10 a+ 2 [] 2",
        "d",
        "new['d'][:7] == old['d'][:7] and new['d'][8] == old['d'][8]",
    ),
    "lambdas in a dict": Trip(
        "k = 3\nd = {'f': lambda x: x + k, 'g': [lambda: k]}",
        "d",
        "print(d['f'](1), d['g'][0]())",
        "4 3",
        "d",
        "new['d']['f'](2) == 5",
    ),
    "the namespace itself": Trip(
        "g = globals(); x = 4", "g x", "print(g is globals(), g['x'])", "True 4", "g", "new['g'] is old"
    ),
    "JSON: plain data": Trip(
        "a = {'s': 'ü', 'n': [1, 2.5, None, True, (1, (2,))]}; f = float('inf')",
        "a f",
        "a['n'].append('new'); print(a, f)",
        "{'s': 'ü', 'n': [1, 2.5, None, True, (1, (2,)), 'new']} inf",
        "a f",
        "new['a']['n'][4] == (1, (2,)) and new['f'] == old['f']",
        "json",
    ),
    "JSON: names of modules": Trip(
        "import math, os.path as p\nfrom collections import Counter",
        "math p Counter",
        "print(math.floor(2.5), p.basename('/a'), Counter('aa'))",
        "2 a Counter({'a': 2})",
        "math Counter",
        "new['math'] is old['math'] and new['Counter'] is old['Counter']",
        "json",
    ),
}


@pytest.mark.parametrize("trip", TRIPS.values(), ids=TRIPS)
def test_round_trip(trip: Trip, notebook: Any, far: Any) -> None:
    old = notebook(trip.before)
    stdout, new = far.trip(old, trip.sent, trip.there, trip.back, trip.encoding)
    assert stdout == trip.prints + "\n"
    assert sorted(new) == sorted(trip.back.split())
    assert eval(trip.true, {"old": old, "new": new})


def test_a_class_goes_and_comes_twice(notebook: Any, far: Any) -> None:
    here = notebook("class C:\n    def m(self): return 1\nc = C()")
    for _ in range(2):
        _, back = far.trip(here, "c", "c.seen = getattr(c, 'seen', 0) + 1", "c")
        here.update(back)
    assert (type(here["c"]) is here["C"], here["c"].seen) == (True, 2)


def test_a_lazy_value_goes_as_its_value(far: Any) -> None:
    entry = {"name": "big", "type": "list", "summary": "3 items", "size": 5 * 2**20}
    here = {"x": LazyValue(entry, lambda: {"big": [1, 2, 3]}), "__name__": "__main__"}
    assert "5 MiB" in repr(here["x"])
    assert far.trip(here, "x", "print(x)")[0] == "[1, 2, 3]\n"


def test_what_could_not_be_packed_leaves_the_rest_whole(notebook: Any, far: Any) -> None:
    here = notebook(
        "import threading, numpy as np\na = np.ones(9000); b = [a]; bad = [b, a, threading.Lock()]; c = [b]"
    )
    packer = Packer(here, limit=2**20)
    packer.add("a", here["a"])
    with pytest.raises(CannotPack):
        packer.add("bad", here["bad"])
    packer.add("b", here["b"])
    packer.add("c", here["c"])
    answer, _ = far.run(packer, "print(b[0] is a, c[0] is b, a.sum())")
    assert (answer["error"], answer["stdout"]) == ("", "True True 9000.0\n")


def test_the_limit_holds_for_all_together() -> None:
    packer = Packer({}, limit=MIB)
    packer.add("a", os.urandom(MIB // 2))
    with pytest.raises(CannotPack, match="`b` and what else is sent are together larger than the limit") as refused:
        packer.add("b", os.urandom(MIB // 2 + 1))
    assert refused.value.code == "too_large"
    assert [entry["name"] for entry in packer.entries] == ["a"]
    packer.add("c", b"small")
    assert packer.size < MIB


def test_size_and_digest_are_those_of_the_file(tmp_path: Path, notebook: Any) -> None:
    import hashlib

    here = notebook(
        "import numpy as np\na = np.ones((100, 1000)); b = a[:, :500]; c = np.ones(7000)[3:]; s = 'x' * 10**6"
    )
    packer = Packer(here, limit=2**30)
    for name in "abcs":
        packer.add(name, here[name])
    packer.write(tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (packer.size, packer.digest())
    unpacked = Unpacked(tmp_path / "file", {})
    assert all(offset % 64 == 0 for offset, _ in unpacked.header["buffers"])
    assert unpacked.load()["c"].ctypes.data % 64 == 0


def test_functions_of_cells_bring_their_source(tmp_path: Path, far: Any) -> None:
    import linecache

    name, text = "<a cell>", "def f():\n    return 1 / 0  # here\n"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    here: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), here)
    packer = Packer(here, limit=MIB)
    packer.add("f", here["f"])
    answer, _ = far.run(packer, "f()")
    assert "return 1 / 0  # here" in answer["error"]


def test_a_module_of_the_working_directory_is_found(tmp_path: Path, far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours_for_the_trip.py").write_text("def f(): return 'by name'\n")
    monkeypatch.syspath_prepend(tmp_path)
    import ours_for_the_trip  # type: ignore[import-not-found]

    assert (
        far.trip({"m": ours_for_the_trip, "f": ours_for_the_trip.f}, "m f", "print(m.f(), f())")[0]
        == "by name by name\n"
    )


def test_a_module_that_is_missing_there_is_named(tmp_path: Path, far: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"  # installed packages are not looked for on the other side
    folder.mkdir()
    (folder / "only_here.py").write_text("class C: pass\n")
    monkeypatch.syspath_prepend(folder)
    import only_here  # type: ignore[import-not-found]

    packer = Packer({}, limit=MIB)
    packer.add("n", 1)
    packer.add("c", only_here.C())
    answer, _ = far.run(packer, "")
    assert "`c` can't be loaded: it needs the module only_here" in answer["error"]
    assert "Install it there" in answer["error"]


def test_what_came_before_a_failure_is_kept(tmp_path: Path) -> None:
    here: dict[str, Any] = {"__name__": "__main__"}
    packer = Packer(here, limit=MIB)
    packer.add("good", [1])
    packer.add("bad", Exploding())
    packer.write(tmp_path / "file")
    with pytest.raises(CannotLoad, match="`bad` can't be loaded: RuntimeError: not here") as refused:
        Unpacked(tmp_path / "file", here).load()
    assert refused.value.loaded == {"good": [1]}


def explode() -> None:
    raise RuntimeError("not here")


class Exploding:
    def __reduce__(self) -> Any:
        return explode, ()


def another_python(path: Path) -> None:
    """Make the file say that another minor version wrote it."""
    data = path.read_bytes()
    size = int.from_bytes(data[6:14], "big")
    header = json.loads(data[14 : 14 + size])
    header["python"] = [3, 7]
    text = json.dumps(header).encode().ljust(size)
    assert len(text) == size
    path.write_bytes(data[:14] + text + data[14 + size :])


def test_code_of_another_python_is_refused_and_data_is_not(tmp_path: Path, notebook: Any) -> None:
    here = notebook("def f(): return 1\nx = [1]")
    for name in "fx":
        packer = Packer(here, limit=MIB)
        packer.add(name, here[name])
        packer.write(tmp_path / name)
        another_python(tmp_path / name)
    with pytest.raises(CannotLoad, match=r"of Python 3\.7") as refused:
        Unpacked(tmp_path / "f", here).load()
    assert (refused.value.code, "--source" in refused.value.hint) == ("python_mismatch", True)
    assert Unpacked(tmp_path / "x", here).load() == {"x": [1]}


@pytest.mark.parametrize("data", [b"", b"short", b"JGPV1\n" + (99).to_bytes(8, "big") + b"{}", b"x" * 100])
def test_a_file_of_something_else_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CannotLoad, match="not a file of this format"):
        Unpacked(tmp_path / "file", {})


def test_plain_python_without_packages_packs_and_loads_plain_data(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from runner.values import Packer, Unpacked, CannotPack\n"
        "packer = Packer({}, limit=1000, encoding='json'); packer.add('x', (1, [2])); packer.write(sys.argv[2])\n"
        "print(Unpacked(sys.argv[2], {}).load())\n"
        "print(Unpacked(sys.argv[3], {}).load())\n"
        "try: Packer({}, limit=1000)\n"
        "except CannotPack as error: print(error)\n"
    )
    packer = Packer({}, limit=1000)
    packer.add("y", {"a": [1, 2.5]})
    packer.write(tmp_path / "pickled")
    folder = Path(jupyter_gpu_platform.runner.__file__).parent.parent
    arguments = [folder, tmp_path / "plain", tmp_path / "pickled"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[:2] == ["{'x': (1, [2])}", "{'y': {'a': [1, 2.5]}}"]
    assert "pip install cloudpickle" in done.stdout


def test_what_is_not_installed_is_not_imported_for_a_summary() -> None:
    class Tensor:
        __module__ = "torch"
        shape, dtype, device = (3, 4), "torch.float32", "cuda:0"

    assert "torch" not in sys.modules
    assert summary(Tensor()) == "float32 3 × 4 cuda:0"


@pytest.mark.parametrize("name", ["values", "describing", "plain_data"])
def test_the_other_side_may_be_python_3_8(name: str) -> None:
    source = Path(jupyter_gpu_platform.runner.__file__).with_name(f"{name}.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    # cloudpickle is imported only where it is used.
    assert imported - {"cloudpickle"} <= sys.stdlib_module_names
