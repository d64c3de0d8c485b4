"""Asking before something is changed for good."""

from __future__ import annotations

import sys
from argparse import Namespace

from wtb_prefect.errors import InvalidInputError


def confirmed(args: Namespace, question: str, instead: str) -> bool:
    """Whether to go on; `instead` is what else can be done.

    Raises `InvalidInputError` where nobody can be asked.
    """
    if args.yes:
        return True
    if args.json or not sys.stdin.isatty():
        raise InvalidInputError(f"nobody can be asked here: give --yes, or {instead}")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
