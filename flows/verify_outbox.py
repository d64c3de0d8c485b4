"""Deployment entry point: verifies what the ledger claims of checkpoints and files."""

from wtb_prefect import verify_outbox

__all__ = ["verify_outbox"]
