"""Which names a cell needs before it runs: read before the cell itself assigns them.

The cell's statements are followed in their order, with the names assigned so far: both branches of an ``if`` must
assign a name for it to count, a loop may not run at all, a function uses its globals when it is named, not when it is
defined. What functions and lambdas read comes from their bytecode, which knows Python's scopes best.
"""

from __future__ import annotations

import ast
import contextlib
import types
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..runner.values import names_in_code
from . import magic_arguments

#: Called with a string, these run it as Python in the caller's namespace.
_RUN = {"eval", "exec"}
#: Methods that take a string which may name the caller's variables (pandas, numexpr, timeit).
_MAYBE = {"eval", "query", "evaluate", "timeit", "repeat"}


@dataclass(frozen=True)
class Names:
    """What a cell does with names of the notebook, each in the order of the cell."""

    #: read before they are assigned
    reads: tuple[str, ...] = ()
    #: read only if a loop doesn't run at all, an exception is caught, or a string is code
    uncertain: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    #: the whole cell, compiled; None where it doesn't compile
    code: types.CodeType | None = field(default=None, compare=False)


def needed(cell: str) -> Names:
    """Find the names that *cell* needs; a cell that is no Python needs none (it fails where it runs)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the job compiles the cell too, and warns then
        return _needed(cell)


def _needed(cell: str) -> Names:
    source = magic_arguments.to_python(cell)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Names()
    flow = _Flow()
    try:
        flow.run(tree.body)
    except RecursionError:
        return Names()
    code = None
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        code = compile(tree, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    reads = tuple(name for name in flow.reads if name != "get_ipython")
    uncertain = tuple(name for name in flow.maybe if name not in flow.reads and name != "get_ipython")
    return Names(reads, uncertain, tuple(flow.writes), tuple(flow.deletes), code)


@dataclass
class _State:
    """Names assigned at one point of the cell."""

    sure: set[str] = field(default_factory=set)
    likely: set[str] = field(default_factory=set)
    #: the point can't be reached: after raise, break, …
    dead: bool = False

    def copy(self) -> _State:
        return _State(set(self.sure), set(self.likely), self.dead)


def _join(states: Iterable[_State]) -> _State:
    """Give what holds whichever of *states* came about."""
    live = [state for state in states if not state.dead]
    if not live:
        return _State(dead=True)
    sure = set.intersection(*(state.sure for state in live))
    likely = set.intersection(*(state.sure | state.likely for state in live))
    return _State(sure, likely - sure)


class _Flow(ast.NodeVisitor):
    def __init__(self) -> None:
        # Dicts, as sets that keep their order.
        self.reads: dict[str, None] = {}
        self.maybe: dict[str, None] = {}
        self.writes: dict[str, None] = {}
        self.deletes: dict[str, None] = {}
        self.state = _State()
        #: what functions and classes of this cell read when they are used
        self.bodies: dict[str, set[str]] = {}
        self._expanding: set[str] = set()
        #: names of comprehensions and class bodies around the present point
        self._scopes: list[set[str]] = []
        self._in_class = 0
        #: inside something that may not be evaluated
        self._conditional = 0
        self._doubtful = 0

    # -- names

    def run(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    def read(self, name: str) -> None:
        if any(name in scope for scope in self._scopes):
            return
        if name not in self.state.sure and not self.state.dead:
            doubtful = self._doubtful or name in self.state.likely
            (self.maybe if doubtful else self.reads).setdefault(name)
        if name in self.bodies and name not in self._expanding:
            self._expanding.add(name)
            for inner in sorted(self.bodies[name]):
                self.read(inner)
            self._expanding.discard(name)

    def write(self, name: str) -> None:
        if self._in_class:
            self._scopes[-1].add(name)
            return
        self.writes.setdefault(name)
        self.bodies.pop(name, None)
        (self.state.likely if self._conditional else self.state.sure).add(name)

    @contextlib.contextmanager
    def _branch(self, state: _State) -> Iterator[_State]:
        before, self.state = self.state, state
        try:
            yield state
        finally:
            self.state = before

    def _follow(self, statements: Iterable[ast.stmt], state: _State) -> _State:
        with self._branch(state):
            self.run(statements)
            return self.state

    @contextlib.contextmanager
    def _unsure(self) -> Iterator[None]:
        self._conditional += 1
        yield
        self._conditional -= 1

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.write(node.id)
        else:
            self.read(node.id)
            self.deletes.setdefault(node.id)
            self.write(node.id)  # whatever reads it now fails here as there

    def _visit_all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    # -- assignments

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Lambda) and all(isinstance(target, ast.Name) for target in node.targets):
            self._visit_all((*node.value.args.defaults, *node.value.args.kw_defaults))
            self._visit_all(node.targets)
            for target in node.targets:
                assert isinstance(target, ast.Name)
                self.bodies[target.id] = _body_names(node.value)
            return
        self.visit(node.value)
        self._visit_all(node.targets)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        scopes, self._scopes = self._scopes, []  # it assigns in the cell, from within a comprehension too
        in_class, self._in_class = self._in_class, 0
        self.visit(node.target)
        self._scopes, self._in_class = scopes, in_class

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                self.write(alias.asname or alias.name.split(".")[0])

    visit_Import = visit_ImportFrom = _import  # noqa: N815 - names that ast.NodeVisitor looks for

    def visit_Global(self, node: ast.Global) -> None:
        pass

    def visit_TypeAlias(self, node: ast.AST) -> None:
        self._visit_all(ast.iter_child_nodes(node))

    # -- branches

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        then = self._follow(node.body, self.state.copy())
        otherwise = self._follow(node.orelse, self.state.copy())
        self.state = _join((then, otherwise))

    def _loop(self, before: _State, body: _State, orelse: list[ast.stmt], *, always: bool) -> None:
        after = body.copy() if always else before.copy()
        after.dead = before.dead
        after.likely |= (body.sure | body.likely) - after.sure
        self.state = self._follow(orelse, after)
        self.state.dead = before.dead

    def _for(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        before = self.state.copy()
        with self._branch(self.state.copy()):
            self.visit(node.target)
            self.run(node.body)
            body = self.state
        self._loop(before, body, node.orelse, always=False)

    visit_For = visit_AsyncFor = _for  # noqa: N815 - ast's names

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        before = self.state.copy()
        body = self._follow(node.body, self.state.copy())
        always = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self._loop(before, body, node.orelse, always=always)

    def _try(self, node: ast.Try | ast.TryStar) -> None:
        before = self.state.copy()
        body = self._follow(node.body, before.copy())
        caught = before.copy()
        caught.likely |= (body.sure | body.likely) - caught.sure
        ends = [self._follow(node.orelse, body)]
        for handler in node.handlers:
            with self._branch(caught.copy()):
                if handler.type is not None:
                    self.visit(handler.type)
                if handler.name:
                    self.write(handler.name)
                self.run(handler.body)
                ends.append(self.state)
        joined = _join(ends)
        if joined.dead:
            joined = _State(caught.sure, caught.likely)
            self._follow(node.finalbody, joined)
            self.state.dead = True
            return
        # A name that only the body assigns: if an exception was caught, nothing more is known of it.
        joined.likely |= body.sure - joined.sure if not body.dead else set()
        self.state = self._follow(node.finalbody, joined)

    visit_Try = visit_TryStar = _try  # noqa: N815 - ast's names

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        ends, complete = [], False
        for case in node.cases:
            with self._branch(self.state.copy()):
                self.visit(case.pattern)
                if case.guard is not None:
                    self.visit(case.guard)
                self.run(case.body)
                ends.append(self.state)
            complete = complete or (case.guard is None and _catches_all(case.pattern))
        self.state = _join(ends if complete else [*ends, self.state])

    def _capturing(self, node: ast.MatchAs | ast.MatchStar | ast.MatchMapping) -> None:
        self.generic_visit(node)
        name = node.rest if isinstance(node, ast.MatchMapping) else node.name
        if name:
            self.write(name)

    visit_MatchAs = visit_MatchStar = visit_MatchMapping = _capturing  # noqa: N815 - ast's names

    def _leaving(self, node: ast.AST) -> None:
        self.generic_visit(node)
        self.state.dead = True

    visit_Raise = visit_Return = visit_Break = visit_Continue = _leaving  # noqa: N815 - ast's names

    # -- expressions that may not be evaluated

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        with self._unsure():
            self._visit_all(node.values[1:])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        with self._unsure():
            self._visit_all((node.body, node.orelse))

    # -- scopes

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self.visit(node.generators[0].iter)
        self._scopes.append(set())
        with self._unsure():
            for i, generator in enumerate(node.generators):
                if i:
                    self.visit(generator.iter)
                self._scopes[-1] |= {n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)}
                self._visit_all(generator.ifs)
            parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
            self._visit_all(parts)
        self._scopes.pop()

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension  # noqa: N815 - ast's names

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all((*node.args.defaults, *node.args.kw_defaults))
        for name in sorted(_body_names(node)):
            self.read(name)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        self._visit_all((*node.decorator_list, *arguments.defaults, *arguments.kw_defaults))
        generic = {getattr(parameter, "name", "") for parameter in getattr(node, "type_params", ())}
        self._scopes.append(generic)
        in_class, self._in_class = self._in_class, 0
        self._visit_all((*(a.annotation for a in every if a is not None), node.returns))
        self._in_class = in_class
        self._scopes.pop()
        body = _body_names(node)
        self.write(node.name)
        if self._in_class:
            self._methods |= body
            return
        self.bodies[node.name] = body
        for name in _global_writes(node):
            self.writes.setdefault(name)
        if node.decorator_list:  # which may call it at once
            self.read(node.name)

    visit_FunctionDef = visit_AsyncFunctionDef = _function  # noqa: N815 - ast's names

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._visit_all((*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)))
        outer = self._methods if self._in_class else None
        methods: set[str] = set()
        self._methods = methods
        self._in_class += 1
        self._scopes.append({"__module__", "__qualname__", "__name__"})
        self.run(node.body)
        self._scopes.pop()
        self._in_class -= 1
        self.write(node.name)
        if outer is not None:
            outer |= methods
            self._methods = outer
        else:
            self.bodies[node.name] = methods

    _methods: set[str]

    # -- strings that are code

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        for fragment in _fragments(node):
            self._fragment(fragment)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        name = _named_by_key(node)
        if name:
            (self.read if isinstance(node.ctx, ast.Load) else self.write)(name)

    def _fragment(self, fragment: magic_arguments.Fragment) -> None:
        if fragment.how == "write":
            self.write(fragment.code)
            return
        statements = _parsed(fragment.code)
        if fragment.how == "run":
            self.run(statements)
            return
        self._doubtful += fragment.how == "maybe"
        # What it assigns, it assigns for itself only.
        writes = dict(self.writes)
        self._follow(statements, self.state.copy())
        self.writes = writes
        self._doubtful -= fragment.how == "maybe"


def _parsed(code: str) -> list[ast.stmt]:
    try:
        return ast.parse(magic_arguments.to_python(code.strip("\n") if "\n" in code else code.strip())).body
    except (SyntaxError, ValueError):
        return []


def _catches_all(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or _catches_all(pattern.pattern))


def _body_names(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    """Give the globals that a function reads when it runs."""
    try:
        module = compile(_alone(node), "<cell>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for constant in module.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_in_code(constant)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            for fragment in _fragments(inner):
                found |= _loose_names(fragment)
    return found


def _alone(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> ast.Module:
    """Give a module with that function alone, without what is evaluated around it."""
    statement: ast.stmt
    if isinstance(node, ast.Lambda):
        statement = ast.Expr(node)
    else:
        parts = {name: getattr(node, name) for name in node._fields}
        statement = type(node)(**{**parts, "decorator_list": []})
    ast.copy_location(statement, node)
    return ast.fix_missing_locations(ast.Module([statement], []))


def _loose_names(fragment: magic_arguments.Fragment) -> set[str]:
    """Give the names that code in a string inside a function reads."""
    if fragment.how == "write":
        return set()
    flow = _Flow()
    flow.run(_parsed(fragment.code))
    return set(flow.reads)


def _global_writes(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Global):
            yield from inner.names


def _named_by_key(node: ast.Subscript) -> str | None:
    """Give ``x`` of ``globals()["x"]``."""
    called = node.value.func if isinstance(node.value, ast.Call) else None
    if not isinstance(called, ast.Name) or called.id not in ("globals", "locals", "vars"):
        return None
    key = node.slice.value if isinstance(node.slice, ast.Constant) else None
    return key if isinstance(key, str) else None


def _fragments(call: ast.Call) -> Iterator[magic_arguments.Fragment]:
    """Give the code in a call's strings: `eval`, `DataFrame.query`, IPython's magics."""
    texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    called = call.func
    if isinstance(called, ast.Name) and called.id in _RUN:
        yield from (magic_arguments.Fragment(text, "run" if called.id == "exec" else "private") for text in texts[:1])
    elif isinstance(called, ast.Attribute) and _is_shell(called.value):
        yield from magic_arguments.fragments(called.attr, texts)
    elif isinstance(called, ast.Attribute) and called.attr in _MAYBE:
        for text in texts[:2]:
            names = _marked_names(text)
            yield from (magic_arguments.Fragment(name, "private") for name in names)
            if not names:
                yield magic_arguments.Fragment(text, "maybe")


def _is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def _marked_names(text: str) -> list[str]:
    """Give the variables of a pandas query: ``@n``."""
    return [part[: _word(part)] for part in text.split("@")[1:] if _word(part)]


def _word(text: str) -> int:
    length = 0
    while length < len(text) and text[: length + 1].isidentifier():
        length += 1
    return length
