"""What identifies the code of a node: source, closure values, defaults, version, files."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable

from wtb_prefect.domain.identifiers import digest
from wtb_prefect.errors import NotFoundError

OPAQUE = "?"
"""First character of a fingerprint that does not cover everything the code may depend on."""


def fingerprint_code(
    implementation: Any, version: str | None = None, depends_on: Iterable[str] = ()
) -> str:
    """The fingerprint of an implementation: equal code and captured values, equal fingerprint.

    Covered: source text, default values, closure values, `functools.partial` arguments, and the
    functions, classes and constants of the same module that the source names; of a list, dict or
    set at the top of the module its source text counts, so that filling it at run time changes
    nothing. A captured object whose value cannot be read (a client, a lock) makes the fingerprint
    opaque (it begins with `?`): results are then not reused across batches, unless `version` is
    declared.
    """
    walk = _Walk(getattr(_function_of(implementation), "__module__", None))
    walk.visit(implementation)
    files = [[path, _file_digest(Path(path))] for path in depends_on]
    mark = OPAQUE if walk.opaque and version is None else ""
    return mark + digest("code", walk.parts, version, files)


def _function_of(thing: Any) -> Any:
    # LangGraph wraps node functions in a RunnableCallable: `func`, or `afunc` for async ones.
    if isinstance(thing, Runnable):
        for name in ("func", "afunc"):
            if (inner := getattr(thing, name, None)) is not None:
                return inner
    return thing


class _Walk:
    """Collects the JSON-able parts of an implementation.

    Code is described once and then referred to by number. Values are described wherever they
    appear: which equal ones are one object differs between a fresh and a cached compilation.
    """

    def __init__(self, module: str | None) -> None:
        self.module = module
        self.parts: list[Any] = []
        self.opaque = False
        self._code: dict[Any, int] = {}
        self._open: set[int] = set()

    def visit(self, thing: Any) -> None:
        """Adds one object and what it depends on."""
        thing = _function_of(thing)
        if isinstance(thing, (str, int, float, bool, bytes, type(None))):
            self.parts.append(repr(thing))
        elif isinstance(thing, (types.FunctionType, type)):
            self._once(thing)
        elif id(thing) in self._open:
            self.parts.append("a value that holds itself")
        else:
            self._open.add(id(thing))
            self._value(thing)
            self._open.discard(id(thing))

    def _once(self, code: types.FunctionType | type) -> None:
        if code in self._code:
            self.parts.append(["code", self._code[code]])
            return
        self._code[code] = len(self._code)
        if isinstance(code, type):
            self._class(code)
        else:
            self._function(code)

    def _value(self, thing: Any) -> None:
        if isinstance(thing, types.MethodType):
            self.visit(thing.__func__)
            self.visit(thing.__self__)
        elif isinstance(thing, (list, tuple, set, frozenset)):
            self._items(type(thing).__name__, thing)
        elif isinstance(thing, Mapping):
            self._items("mapping", [x for pair in sorted(thing.items(), key=repr) for x in pair])
        elif isinstance(thing, types.BuiltinFunctionType):
            self.parts.append(["builtin", thing.__module__, thing.__qualname__])
        elif isinstance(thing, functools.partial):
            self._items("partial", [thing.func, thing.args, thing.keywords])
        elif hasattr(thing, "builder"):
            self._graph(thing.builder)
        else:
            self._object(thing)

    def _items(self, kind: str, items: Iterable[Any]) -> None:
        values = sorted(items, key=repr) if kind in ("set", "frozenset") else list(items)
        self.parts.append([kind, len(values)])
        for value in values:
            self.visit(value)

    def _function(self, function: types.FunctionType) -> None:
        self.parts.append(["function", function.__qualname__, _source(function)])
        self._items("defaults", function.__defaults__ or ())
        self._items("keyword defaults", sorted((function.__kwdefaults__ or {}).items()))
        captured = function.__code__.co_freevars
        for name, cell in zip(captured, function.__closure__ or (), strict=False):
            self.parts.append(["closure", name])
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # a cell that is not filled yet
                self.parts.append("empty")
        for name in sorted(_global_names(function.__code__)):
            self._global(name, function.__globals__.get(name))

    def _global(self, name: str, value: Any) -> None:
        """Names of the same module: helpers and constants are part of the code that uses them."""
        if isinstance(value, (types.FunctionType, type)) and value.__module__ == self.module:
            self.visit(value)
        elif isinstance(value, (str, int, float, bool, bytes, tuple, frozenset)):
            self.parts.append(["global", name])
            self.visit(value)
        elif isinstance(value, (list, dict, set)) and self.module is not None:
            self.parts.append(["global", name, _assignments(self.module).get(name, "")])

    def _class(self, cls: type) -> None:
        self.parts.append(["class", f"{cls.__module__}.{cls.__qualname__}"])
        if cls.__module__ == self.module:
            self.parts.append(_source(cls))

    def _graph(self, builder: Any) -> None:
        joins = sorted([list(sources), target] for sources, target in builder.waiting_edges)
        self.parts.append(["graph", sorted(map(list, builder.edges)), joins])
        for node, branches in sorted(builder.branches.items()):
            for name, branch in sorted(branches.items()):
                self.parts.append(["router", node, name, sorted((branch.ends or {}).items())])
                self.visit(branch.path)
        for key, channel in sorted(builder.channels.items()):
            self.parts.append(["channel", key, type(channel).__name__])
            self.visit(getattr(channel, "operator", None))
        for name, spec in builder.nodes.items():
            self.parts.append(name)
            self.visit(spec.runnable)

    def _object(self, thing: Any) -> None:
        cls = type(thing)
        self.parts.append(["object", f"{cls.__module__}.{cls.__qualname__}"])
        call = inspect.getattr_static(cls, "__call__", None)
        if isinstance(call, types.FunctionType) and cls.__module__ == self.module:
            self._class(cls)
        if dataclasses.is_dataclass(thing):
            self._items("fields", [getattr(thing, f.name) for f in dataclasses.fields(thing)])
        elif hasattr(thing, "model_dump"):
            self.visit(thing.model_dump())
        else:
            self.opaque = True


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


@functools.cache
def _assignments(module: str) -> Mapping[str, str]:
    """Name -> source text of what is assigned to it at the top of a module."""
    try:
        source = inspect.getsource(sys.modules[module])
        tree = ast.parse(source)
    except (KeyError, OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        text = ast.get_source_segment(source, statement) or ""
        found.update((target.id, text) for target in targets if isinstance(target, ast.Name))
    return found


def _source(thing: types.FunctionType | type) -> str:
    # Of a function the code object: asked for a decorated one, inspect shows what it wraps.
    code: types.CodeType | None = getattr(thing, "__code__", None)
    try:
        source = textwrap.dedent(inspect.getsource(thing if code is None else code))
    except (OSError, TypeError):
        # No source (a REPL, exec): the byte code, its names and its constants stand for it.
        return "" if code is None else repr(_byte_code(code))
    # The source of a lambda is its whole line, which may hold other ones.
    if code is not None and code.co_name == "<lambda>":
        return source + repr(_byte_code(code))
    return source


def _byte_code(code: types.CodeType) -> list[Any]:
    return [code.co_code.hex(), code.co_names, [_constant(c) for c in code.co_consts]]


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _byte_code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else value


def _file_digest(path: Path) -> str:
    if path.is_dir():
        files = sorted(found for found in path.rglob("*") if found.is_file())
        return digest([[str(f.relative_to(path)), _file_digest(f)] for f in files])
    if not path.is_file():
        raise NotFoundError("file or folder in depends_on", str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()
