"""Traces of LangSmith and OpenTelemetry: what is queued is sent before a worker may be stopped."""

from __future__ import annotations

import sys
import threading

_SECONDS = 10.0


def flush_traces() -> None:
    """Waits until queued traces are sent, if any tracing was used; at most 10 s.

    A Ray worker is killed when its batch ends; the tracers' own threads would die with their
    queues.
    """
    langsmith = sys.modules.get("langsmith.run_trees")
    client = getattr(langsmith, "_CLIENT", None)
    if client is not None:
        # It waits as long as an address does not answer: in a thread that need not end.
        sender = threading.Thread(target=client.flush, daemon=True)
        sender.start()
        sender.join(_SECONDS)
    telemetry = sys.modules.get("opentelemetry.sdk.trace")
    if telemetry is not None:
        from opentelemetry import trace  # noqa: PLC0415 - only where a program uses it

        provider = trace.get_tracer_provider()
        if isinstance(provider, telemetry.TracerProvider):
            provider.force_flush(int(_SECONDS * 1000))
