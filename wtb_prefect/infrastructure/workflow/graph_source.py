"""From what a user calls "the graph" (builder, compiled graph, factory, path) to a builder."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph

from wtb_prefect.errors import GraphError, NotFoundError


@dataclass(frozen=True, slots=True)
class GraphSource:
    """A builder, what of the user's own `compile` call matters here, and the runs' context.

    Static breakpoints are not taken over: a batch test has nobody to answer them.
    """

    builder: StateGraph[Any, Any, Any, Any]
    store: Any = None
    cache: Any = None
    name: str | None = None
    context: Any = None


_loading: ContextVar[str | None] = ContextVar("wtb_loading", default=None)


def file_being_loaded() -> str | None:
    """The file or module whose own code is running now because it is being imported."""
    return _loading.get()


def load_attribute(path: str) -> Any:
    """The object named `package.module:attribute` or `path/to/file.py:attribute`.

    Raises:
        NotFoundError: no such module, file or attribute.
        GraphError: the module raised while it was imported.
    """
    module_name, _, attribute = path.partition(":")
    if not attribute:
        raise NotFoundError(
            "attribute in import path (write module:attribute or file.py:name)", path
        )
    token = _loading.set(module_name)
    try:
        module = _load_module(module_name)
    finally:
        _loading.reset(token)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in vars(module) if not name.startswith("_")]
            raise NotFoundError(f"attribute in {module_name}", attribute, names)
        found = getattr(found, part)
    return found


def _load_module(name: str) -> Any:
    if name.endswith(".py"):
        return _load_file(Path(name))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(exc.name + ".")):
            raise NotFoundError("module", name) from exc
        raise GraphError(f"importing {name} failed: {exc}") from exc
    except Exception as exc:  # user code runs on import and may raise anything
        raise GraphError(f"importing {name} failed: {type(exc).__name__}: {exc}") from exc


def _load_file(path: Path) -> Any:
    """A file as a module, loaded once in a process."""
    path = path.resolve()
    if not path.is_file():
        siblings = [found.name for found in path.parent.glob("*.py")]
        raise NotFoundError("project file", str(path), siblings)
    name = _module_name(path)
    if name in sys.modules:
        return sys.modules[name]
    # Siblings of the file are importable from it, as when it is run as a script.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise NotFoundError("Python file", str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:  # user code runs on import and may raise anything
        del sys.modules[name]
        raise GraphError(f"importing {path} failed: {type(exc).__name__}: {exc}") from exc
    return module


def _module_name(path: Path) -> str:
    """The same name in every process, so that checkpointed classes of the file are found again;
    only a second file of the same name in one process gets a suffix."""
    name = f"wtb_project_{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is None or loaded.__file__ == str(path):
        return name
    return f"{name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


def resolve_graph(graph: Any) -> GraphSource:
    """The builder of a builder, a compiled graph, a factory of either, or an import path.

    Raises:
        NotFoundError: an import path that leads nowhere.
        GraphError: something else than a graph, or a factory that raised.
    """
    if isinstance(graph, str):
        return resolve_graph(load_attribute(graph))
    if isinstance(graph, StateGraph):
        return GraphSource(graph)
    if isinstance(graph, CompiledStateGraph):
        return GraphSource(graph.builder, store=graph.store, cache=graph.cache, name=graph.name)
    if callable(graph):
        try:
            made = graph()
        except Exception as exc:  # a factory is user code and may raise anything
            what = f"raised {type(exc).__name__}: {exc}"
            raise GraphError(f"the graph factory {graph!r} {what}") from exc
        if isinstance(made, (StateGraph, CompiledStateGraph)):
            return resolve_graph(made)
        what = f"returned a {type(made).__name__}, not a graph"
        raise GraphError(f"the graph factory {graph!r} {what}")
    raise GraphError(
        f"{type(graph).__name__} is not a graph: give a StateGraph, a compiled graph, a factory of "
        "either, or an import path 'package.module:attribute'"
    )
