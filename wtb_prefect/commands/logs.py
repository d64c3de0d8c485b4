"""`wtb logs`: what the code of a cell printed and logged, and what ended it."""

from __future__ import annotations

from argparse import Namespace

from wtb_prefect.application.find_cell import find_cell_execution
from wtb_prefect.application.read_logs import read_logs
from wtb_prefect.bootstrap.ledger import open_cell_logs
from wtb_prefect.commands.look import need_ledger
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.projects import find_project
from wtb_prefect.domain.log_line import LogLine


def logs(args: Namespace, out: Output) -> int:
    """The lines of a cell, those of its shared prefixes first."""
    project = find_project(args.project)
    with need_ledger(project) as open_uow:
        with open_uow() as uow:
            execution = find_cell_execution(uow, project.workflow_id, args.cell, args.batch)
        kept = open_cell_logs(project.locations)
        lines = read_logs(open_uow, kept, execution.execution_id, args.node)
    out.say(f"execution {execution.execution_id}: {execution.status}, {len(lines)} lines")
    for line in lines:
        out.say(_shown(line))
    out.data({"execution_id": execution.execution_id, "status": execution.status, "lines": lines})
    return 0


def _shown(line: LogLine) -> str:
    clock = line.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    first, *more = line.text.split("\n")
    head = f"{clock}  {line.node or '-':<12}  {line.level:<8}  {first}"
    return "\n".join([head, *(f"    {text}" for text in more)])
