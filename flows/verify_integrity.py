"""Deployment entry point: audits ledger, checkpoints and files."""

from wtb_prefect import verify_integrity

__all__ = ["verify_integrity"]
