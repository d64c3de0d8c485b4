"""Entry points for the outside: Prefect flows, tasks, blocks and artifacts.

Only this package knows Prefect; Ray is imported in `ray_task_runner` alone.
"""
