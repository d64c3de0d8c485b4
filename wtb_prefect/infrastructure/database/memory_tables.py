"""Tables of rows by key, with the database's rules: foreign keys at commit, rollback by default."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import ForeignKey, Table, UniqueConstraint

from wtb_prefect.errors import LedgerError
from wtb_prefect.infrastructure.database.rows import Row
from wtb_prefect.infrastructure.database.tables import metadata, row_columns

_T = TypeVar("_T")

Key: TypeAlias = tuple[object, ...]
Rows: TypeAlias = Mapping[Key, Row]
Snapshot: TypeAlias = Mapping[str, Rows]


class MemoryTables:
    """The tables as one unit of work sees them; what it touches is copied first."""

    def __init__(self, *, writable: bool) -> None:
        self._writable = writable
        self._committed: Snapshot | None = None
        self._touched: dict[str, dict[Key, Row]] = {}

    def open(self, snapshot: Snapshot) -> None:
        self._committed = snapshot
        self._touched = {}

    def close(self) -> None:
        self._committed = None

    def checked(self) -> Snapshot:
        """The tables with what was written.

        Raises:
            LedgerError: a row written, or left behind, names a row that does not exist, or two rows
                share what must be unique.
        """
        snapshot = {**self._open(), **self._touched}
        for name, rows in self._touched.items():
            _check_unique(metadata.tables[name], rows)
        for name in snapshot:
            for key in metadata.tables[name].foreign_keys:
                if name in self._touched or key.column.table.name in self._touched:
                    _check_reference(key, snapshot)
        return snapshot

    def get(self, table: Table, key: Key) -> Row | None:
        return self._rows(table).get(key)

    def where(self, table: Table, *, order: Iterable[str] = (), **equal: Any) -> list[Row]:
        """The rows with these values, in the order of columns or else of first insertion."""
        wanted = [(_position(table, name), value) for name, value in equal.items()]
        found = [row for row in self._rows(table).values() if all(row[n] == v for n, v in wanted)]
        positions = [_position(table, name) for name in order]
        return sorted(found, key=lambda row: [row[n] for n in positions])

    def put(self, table: Table, row: Row) -> None:
        """Inserts, or replaces the row of the same key where it stands."""
        rows = self._writable_rows(table)
        rows[tuple(row[n] for n in _key(table))] = row

    def put_new(self, table: Table, row: Row) -> bool:
        """Inserts, unless a row of that key exists."""
        rows = self._writable_rows(table)
        return rows.setdefault(tuple(row[n] for n in _key(table)), row) is row

    def append(self, table: Table, row: Row) -> None:
        """Inserts into a table without a key."""
        rows = self._writable_rows(table)
        rows[(len(rows),)] = row

    def update(self, table: Table, key: Key, **values: object) -> bool:
        """Sets columns of a row; answers whether there is one."""
        row = self.get(table, key)
        rows = self._writable_rows(table)
        if row is None:
            return False
        changed = list(row)
        for name, value in values.items():
            changed[_position(table, name)] = value
        rows[key] = tuple(changed)
        return True

    def remove(self, table: Table, **equal: Any) -> None:
        """Removes the rows with these values."""
        rows = self._writable_rows(table)
        for row in self.where(table, **equal):
            del rows[tuple(row[n] for n in _key(table))]

    def _rows(self, table: Table) -> Rows:
        committed = self._open()
        return self._touched.get(table.name, committed.get(table.name, {}))

    def _writable_rows(self, table: Table) -> dict[Key, Row]:
        if not self._writable:
            raise LedgerError("this unit of work was opened for reading: use write=True")
        committed = self._open()
        if table.name not in self._touched:
            self._touched[table.name] = dict(committed.get(table.name, {}))
        return self._touched[table.name]

    def _open(self) -> Snapshot:
        if self._committed is None:
            raise LedgerError("the unit of work is not open: it is used once, inside `with`")
        return self._committed


class MemoryRepository:
    """What repositories in memory share."""

    def __init__(self, session: MemoryTables) -> None:
        self._session = session

    def _get(self, table: Table, decode: Callable[[Row], _T], *key: object) -> _T | None:
        row = self._session.get(table, key)
        return None if row is None else decode(row)

    def _by_execution(
        self, table: Table, ids: Sequence[str], decode: Callable[[Row], _T], *order: str
    ) -> dict[str, list[_T]]:
        wanted = set(ids)
        found: dict[str, list[_T]] = {}
        for row in self._session.where(table, order=order):
            if row[0] in wanted:  # the first column of these tables is the execution
                found.setdefault(row[0], []).append(decode(row))
        return found


@cache
def _position(table: Table, column: str) -> int:
    return [c.name for c in row_columns(table)].index(column)


@cache
def _key(table: Table) -> tuple[int, ...]:
    """Where the key stands in a row: the primary key, or what stands in for a given number."""
    columns = {column.name for column in row_columns(table)}
    key = [column.name for column in table.primary_key]
    if not columns.issuperset(key):
        (unique,) = (c for c in table.constraints if isinstance(c, UniqueConstraint))
        key = [column.name for column in unique.columns]
    return tuple(_position(table, name) for name in key)


def _check_unique(table: Table, rows: Rows) -> None:
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            positions = [_position(table, column.name) for column in constraint.columns]
            if len({tuple(row[n] for n in positions) for row in rows.values()}) < len(rows):
                names = ", ".join(column.name for column in constraint.columns)
                raise LedgerError(f"the ledger failed: two rows of {table.name} share {names}")


def _check_reference(key: ForeignKey, snapshot: Snapshot) -> None:
    child, parent = key.parent.table, key.column.table
    position = _position(child, key.parent.name)
    parents = snapshot.get(parent.name, {})
    for row in snapshot[child.name].values():
        if row[position] is not None and (row[position],) not in parents:
            raise LedgerError(
                f"the ledger failed: {child.name}.{key.parent.name} names {row[position]!r}, "
                f"which is not in {parent.name}"
            )
