"""LangGraph's recursion limit over a whole path, its shared prefix included."""

from __future__ import annotations

from langgraph.errors import ErrorCode, GraphRecursionError, create_error_message


def check_limit(step: int, limit: int) -> None:
    """Raises LangGraph's own error once a graph stands at a step at or beyond the limit.

    LangGraph counts from where a run begins, so a fork would get the whole budget again. Its own
    rule for a run from the start: after step `limit` not even an end is reached.
    """
    if step >= limit:
        raise GraphRecursionError(
            create_error_message(
                message=f"Recursion limit of {limit} reached without hitting a stop condition. "
                "You can increase the limit by setting the `recursion_limit` config key.",
                error_code=ErrorCode.GRAPH_RECURSION_LIMIT,
            )
        )
