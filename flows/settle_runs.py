"""Deployment entry point: cancels executions whose suspended flow run was cancelled."""

from wtb_prefect import settle_runs

__all__ = ["settle_runs"]
