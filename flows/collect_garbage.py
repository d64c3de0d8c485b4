"""Deployment entry point: removes contents of files that nothing names any more."""

from wtb_prefect import collect_garbage

__all__ = ["collect_garbage"]
