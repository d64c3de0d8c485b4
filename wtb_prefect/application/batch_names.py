"""How a batch is called, and within which name its cells are taken for equal."""

from __future__ import annotations

from collections.abc import Sequence

from wtb_prefect.application.session import Session
from wtb_prefect.domain.batch_test import Case, VariantCombination
from wtb_prefect.domain.identifiers import stable_id
from wtb_prefect.domain.mock_node import NodeMock


def reuse_of(batch_id: str | None, mocks: Sequence[NodeMock], session: Session) -> str:
    """The name within which equal cells answer each other.

    Two kinds of names: a batch may be called like a project. Mocked cells have their own.
    """
    mocked = "mocked " if mocks else ""
    if batch_id:
        return f"{mocked}batch {batch_id}"
    return f"{mocked}project {session.project.name}"


def batch_id_of(
    session: Session,
    combinations: Sequence[VariantCombination],
    cases: Sequence[Case],
    repeats: int,
    mocks: Sequence[NodeMock],
) -> str:
    """The id of a batch that the user gave none: made from the request."""
    names = sorted(combination.name for combination in combinations)
    return stable_id(
        "batch",
        session.project.name,
        names,
        sorted(case.id for case in cases),
        repeats,
        *([mock.node, mock.fingerprint, mock.batch] for mock in mocks),
    )
