"""Statements built once.

Core's work per call costs more than SQLite's: an `INSERT` through `Connection.execute` takes 40 us,
through `exec_driver_sql` 12 us, through the driver's cursor 4 us. Statements are on the path of
every super-step, so they are compiled at first use and run as text with positional parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import BindParameter, ClauseElement, Dialect, Select, Table, Update, bindparam
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

from wtb_prefect.infrastructure.database.tables import row_columns

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

Query: TypeAlias = Select[*tuple[Any, ...]]

# SQLite before 3.32 takes 999 parameters a statement.
CHUNK = 900


class Statement:
    """A write, compiled once per dialect; parameters go by position."""

    __slots__ = ("_build", "_texts")

    def __init__(self, build: Callable[[str], ClauseElement]) -> None:
        self._build = build
        self._texts: dict[str, str] = {}

    def text(self, dialect: Dialect) -> str:
        """The SQL text in a dialect whose parameters are positional."""
        text = self._texts.get(dialect.name)
        if text is None:
            compiled = self._build(dialect.name).compile(dialect=dialect)
            text = self._texts[dialect.name] = str(compiled)
        return text


class Reading:
    """A query compiled for a dialect; parameters go by name, expanding ones too."""

    __slots__ = ("_compiled", "_converters", "_dialect", "_types")

    def __init__(self, query: Query, dialect: Dialect) -> None:
        compiled = query.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._compiled = compiled
        self._types = [column.type.dialect_impl(dialect) for column in query.selected_columns]
        self._dialect = dialect
        self._converters: list[tuple[int, Callable[[Any], Any]]] | None = None

    def rows(self, cursor: DBAPICursor, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """All rows, their values as the columns' types have them."""
        ready = self._compiled.construct_expanded_state(dict(values))
        cursor.execute(ready.statement, ready.positional_parameters)
        rows = cursor.fetchall()
        if self._converters is None:
            self._converters = self._find_converters(cursor)
        converters = self._converters
        return [_converted(row, converters) for row in rows] if converters else list(rows)

    def _find_converters(self, cursor: DBAPICursor) -> list[tuple[int, Callable[[Any], Any]]]:
        """What the driver leaves to do; some drivers say with an answer what its columns are."""
        codes = [column[1] for column in cursor.description or ()]
        found = (
            kind.result_processor(self._dialect, code)
            for kind, code in zip(self._types, codes, strict=True)
        )
        return [(index, convert) for index, convert in enumerate(found) if convert is not None]


def _converted(
    row: Sequence[Any], converters: Sequence[tuple[int, Callable[[Any], Any]]]
) -> tuple[Any, ...]:
    values = list(row)
    for index, convert in converters:
        values[index] = convert(values[index])
    return tuple(values)


@lru_cache(maxsize=512)
def reading(query: Query, dialect: Dialect) -> Reading:
    """The compiled form of a query; those made for one call only are forgotten again."""
    return Reading(query, dialect)


def fixed(statement: ClauseElement) -> Statement:
    """A statement that is the same in every dialect."""
    return Statement(lambda _: statement)


def insert_row(table: Table) -> Statement:
    """Inserts a row; one of the same key is a fault."""
    return Statement(lambda dialect: _insert(table, dialect))


def insert_or_ignore(table: Table) -> Statement:
    """Inserts a row; one of the same key stays as it is."""
    return Statement(lambda dialect: _insert(table, dialect).on_conflict_do_nothing())


def upsert(table: Table, *key: str) -> Statement:
    """Inserts a row, or replaces the one of the same key."""
    return Statement(lambda dialect: _upsert(table, dialect, key))


def _insert(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    # `ON CONFLICT` is no part of Core: each dialect that has it brings its own insert.
    dialects = import_module(f"sqlalchemy.dialects.{dialect}")
    insert: sqlite.Insert | postgresql.Insert = dialects.insert(table)
    return insert.values({c.name: bindparam(c.name) for c in row_columns(table)})


def _upsert(table: Table, dialect: str, key: tuple[str, ...]) -> sqlite.Insert | postgresql.Insert:
    insert = _insert(table, dialect)
    rest = [c.name for c in row_columns(table) if c.name not in key]
    return insert.on_conflict_do_update(
        index_elements=key, set_={name: insert.excluded[name] for name in rest}
    )


def value() -> BindParameter[Any]:
    """A parameter; parameters are given in the order they stand in the statement."""
    return bindparam(None, required=True)


def set_columns(statement: Update, *columns: str) -> Update:
    """`SET` of the columns, in this order."""
    return statement.ordered_values(*((column, value()) for column in columns))


def chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """The distinct ids in groups that fit one statement's parameters."""
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), CHUNK):
        yield distinct[start : start + CHUNK]
