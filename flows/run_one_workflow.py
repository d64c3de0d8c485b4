"""Deployment entry point: one execution, suspended where it holds."""

from wtb_prefect import run_workflow

__all__ = ["run_workflow"]
