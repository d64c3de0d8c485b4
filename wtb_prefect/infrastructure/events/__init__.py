"""Telling those who listen in this process."""
