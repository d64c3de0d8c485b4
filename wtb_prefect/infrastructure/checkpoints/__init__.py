"""Checkpoints through LangGraph's savers."""
