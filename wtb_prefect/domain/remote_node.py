"""A node whose body runs as a task of its own, with resources of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteNode:
    """What a node's body needs where it runs. `variant` None: all of them; `memory` in bytes."""

    node: str
    variant: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def needs(self) -> dict[str, float]:
        """Resource -> amount, by Ray's names; what is not needed is absent."""
        needs = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory or 0}
        return {name: amount for name, amount in {**needs, **self.resources}.items() if amount}

    def __str__(self) -> str:
        name = self.node if self.variant is None else f"{self.node}={self.variant}"
        needs = ", ".join(f"{amount:g} {what}" for what, amount in self.needs.items())
        return f"{name} ({needs or 'no resources'})"
