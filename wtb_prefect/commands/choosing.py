"""`--case`, `--combination`, `--tag` and `--limit`: some cells of a batch."""

from __future__ import annotations

from argparse import Namespace

from wtb_prefect.application.choose_cells import CellChoice, choose_cells
from wtb_prefect.commands.projects import load_project
from wtb_prefect.domain.cell_filter import CellFilter
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork


def filter_of(args: Namespace) -> CellFilter | None:
    """The filter a command line asks for; None where it asks for none."""
    only = CellFilter(
        cases=args.case,
        combinations=args.combination,
        tags=args.tag,
        limit=getattr(args, "limit", None),  # results are not limited to the first cases
    )
    return only or None


def recorded_choice(args: Namespace, open_uow: OpenUnitOfWork, batch_id: str) -> CellChoice | None:
    """What a command line chooses of a batch in the ledger. Raises as `choose_cells`."""
    only = filter_of(args)
    if only is None:
        return None
    with open_uow() as uow:
        cells = uow.cells.list(batch_id)
    cases: dict[str, tuple[str, ...]] = {cell.case_id: () for cell in cells}
    if only.tags:
        cases.update(_recorded_tags(args.project, batch_id))
    return choose_cells(only, cases, sorted({cell.combination for cell in cells}))


def _recorded_tags(project: str, batch_id: str) -> dict[str, tuple[str, ...]]:
    """Tags are kept with the cases, which only LangGraph's serializer reads: imported for them."""
    from wtb_prefect.application.choose_cells import tags_of  # noqa: PLC0415
    from wtb_prefect.application.load_case import load_cases  # noqa: PLC0415
    from wtb_prefect.sdk.test_bench import TestBench  # noqa: PLC0415

    with TestBench(load_project(project)) as bench:
        return tags_of(load_cases(bench.session, batch_id))
