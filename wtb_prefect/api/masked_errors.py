"""What leaves a flow or task as an error is stored by Prefect's server: without secrets."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from wtb_prefect.errors import InfrastructureError, InvalidInputError, WTBError
from wtb_prefect.infrastructure.secrets import mask_secrets


@contextmanager
def masked_errors() -> Iterator[None]:
    """Raises an error that names a secret anew, without it and without what caused it.

    A graph factory may repeat its API key in what it raises; Prefect logs the whole chain.
    """
    try:
        yield
    except Exception as exc:  # whatever it is, Prefect would store it: raised on, or anew
        text = "".join(traceback.format_exception(exc))
        if mask_secrets(text) == text:
            raise
        raise _masked(exc) from None


def _masked(exc: Exception) -> WTBError:
    """The nearest of our own kinds: what decides whether a chunk is lost or the batch fails."""
    message = mask_secrets(str(exc))
    if isinstance(exc, (InfrastructureError, ConnectionError)):
        return InfrastructureError(message)
    if isinstance(exc, InvalidInputError):
        return InvalidInputError(message)
    return WTBError(f"{type(exc).__name__}: {message}")
