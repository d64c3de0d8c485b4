"""`wtb branch`: one execution, or every cell of a batch."""

from __future__ import annotations

from argparse import Namespace

from wtb_prefect.commands.control import branch_one
from wtb_prefect.commands.output import Output
from wtb_prefect.commands.run import branch_all
from wtb_prefect.errors import InvalidInputError


def branch(args: Namespace, out: Output) -> int:
    """Goes on from a checkpoint another way, in new executions."""
    if args.all_cells is None:
        if args.execution is None or args.checkpoint is None:
            raise InvalidInputError("give EXECUTION and CHECKPOINT, or --all-cells BATCH")
        if args.node is not None or args.batch_id is not None:
            raise InvalidInputError("--node and --batch-id go with --all-cells")
        return branch_one(args, out)
    if args.execution is not None or args.update is not None or args.breakpoint:
        raise InvalidInputError(
            "--all-cells BATCH goes with --node and --variant: its cells run to their ends, from "
            "the state they have"
        )
    return branch_all(args, out)
