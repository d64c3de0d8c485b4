"""Cases in and out of the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wtb_prefect.application.references import reference_to
from wtb_prefect.application.session import (
    BatchScope,
    CaseFingerprints,
    PreparedCase,
    Session,
)
from wtb_prefect.domain.batch_test import Case, StoredCase
from wtb_prefect.domain.file_processing import FileCommit, FileMemento, commit_id_of
from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.interfaces.unit_of_work import UnitOfWork
from wtb_prefect.errors import NotFoundError

_RECENT = 64
"""Case rows kept by a worker: at most this many cases are in flight."""


def case_fingerprints(session: Session, case: Case) -> CaseFingerprints:
    """Digests of what results may depend on in a case (tags and metadata are not among it)."""
    files = [[path, _content_id(content)] for path, content in sorted(case.files.items())]
    return CaseFingerprints(
        case=digest("case", _value_id(session, dict(case.state)), files),
        expected=digest("expected", _value_id(session, case.expected)),
        answers=_answers_id(session, case.answers),
    )


def store_case(
    session: Session, batch_id: str, position: int, case: Case, base_commit: str | None
) -> tuple[StoredCase, FileCommit | None]:
    """A case as the ledger keeps it, and the commit that adds its files to the base workspace."""
    commit = _case_files(session, case, base_commit)
    prints = case_fingerprints(session, case)
    files = commit.changed if commit else ()
    payload = {
        "state": dict(case.state),
        "expected": case.expected,
        "answers": _stored_answers(session, case),
        "tags": list(case.tags),
        "metadata": dict(case.metadata),
        "files": [[m.path, m.blob_id, m.size, m.mode] for m in files],
        "commit_id": commit.commit_id if commit else base_commit,
        "fingerprints": asdict(prints),
    }
    encoding, data = session.codec.dump(payload)
    stored = StoredCase(
        batch_id=batch_id,
        case_id=case.id,
        position=position,
        fingerprint=prints.of_run,
        encoding=encoding,
        payload=data,
    )
    return stored, commit


def load_cases(session: Session, batch_id: str) -> list[Case]:
    """All cases of a stored batch, in order; their files are references to stored contents."""
    with session.open_uow() as uow:
        stored = uow.cases.list(batch_id)
    return [_case(s.case_id, session.codec.load(s.encoding, s.payload), session) for s in stored]


def load_case(uow: UnitOfWork, session: Session, scope: BatchScope, case_id: str) -> PreparedCase:
    """A stored case. Raises `NotFoundError` if the batch has none of that id.

    Rows are kept for the stretches of the same case that follow; values are decoded each time,
    because a node may change what it is given.
    """
    stored = scope.recent_cases.get(case_id)
    if stored is None:
        stored = _stored_case(uow, scope.batch_id, case_id)
        if len(scope.recent_cases) >= _RECENT:
            scope.recent_cases.clear()
        scope.recent_cases[case_id] = stored
    data = session.codec.load(stored.encoding, stored.payload)
    return PreparedCase(
        case=_case(case_id, data, session),
        fingerprints=CaseFingerprints(**data["fingerprints"]),
        commit_id=data["commit_id"],
    )


def _stored_case(uow: UnitOfWork, batch_id: str, case_id: str) -> StoredCase:
    stored = uow.cases.get(batch_id, case_id)
    if stored is None:
        known = [found.case_id for found in uow.cases.list(batch_id)]
        raise NotFoundError("case", case_id, known)
    return stored


def _stored_answers(session: Session, case: Case) -> Any:
    if callable(case.answers):
        session.answer_functions[case.id] = case.answers
        return {"function": reference_to(case.answers)}
    return list(case.answers or ())


def _answers(session: Session, case_id: str, stored: Any) -> Any:
    if not isinstance(stored, Mapping):
        return stored
    here = session.answer_functions.get(case_id)
    return session.resolve(stored["function"]) if here is None else here


def _case(case_id: str, data: Mapping[str, Any], session: Session) -> Case:
    return Case(
        id=case_id,
        state=data["state"],
        expected=data["expected"],
        answers=_answers(session, case_id, data.get("answers", ())),
        files={
            path: FileMemento(path=path, blob_id=blob, size=size, mode=mode)
            for path, blob, size, mode in data["files"]
        },
        tags=tuple(data["tags"]),
        metadata=data["metadata"],
    )


def _case_files(session: Session, case: Case, base_commit: str | None) -> FileCommit | None:
    if not case.files:
        return None
    known = tuple(c for c in case.files.values() if isinstance(c, FileMemento))
    fresh = [(p, _bytes(c)) for p, c in case.files.items() if not isinstance(c, FileMemento)]
    stored = session.tracker.store_texts(fresh) if fresh else ()
    changed = tuple(sorted((*known, *stored), key=lambda memento: memento.path))
    return FileCommit(
        commit_id=commit_id_of(base_commit, changed, ()),
        parent_id=base_commit,
        execution_id=None,
        changed=changed,
        removed=(),
        created_at=session.clock.now(),
    )


def _content_id(content: Any) -> str:
    if isinstance(content, FileMemento):
        return content.blob_id
    return hashlib.sha256(_bytes(content)).hexdigest()


def _value_id(session: Session, value: Any) -> str:
    _, payload = session.codec.dump({"value": value})
    return hashlib.sha256(payload).hexdigest()


def _answers_id(session: Session, answers: Any) -> str | None:
    if callable(answers):
        return session.fingerprint(answers)
    return digest("answers", _value_id(session, list(answers))) if answers else None


def _bytes(content: Any) -> bytes:
    if isinstance(content, Path):
        return content.read_bytes()
    return content.encode() if isinstance(content, str) else bytes(content)
