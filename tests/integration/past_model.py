"""What running again after an edit costs, worked out apart from the project's own code."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from graphs import Alone, Blueprint, Body, Request

Choices = Mapping[str, str]


def edited(request: Request, node: str, name: str, edit: int) -> Request:
    """The request with other code for one implementation of a node."""
    if name == "original":
        bodies = dict(request.blueprint.bodies)
        bodies[node] = replace(bodies[node], edit=edit)
        made = request.blueprint
        blueprint = Blueprint(bodies, made.edges, made.joins, made.branches, made.loops)
        return Request(blueprint, request.variants, request.matrix)
    variants = tuple(
        replace(body, edit=edit) if (body.node, body.variant) == (node, name) else body
        for body in request.variants
    )
    return Request(request.blueprint, variants, request.matrix)


def implementations(request: Request) -> list[tuple[str, str]]:
    """Everything that can be edited."""
    named: list[Body] = [*request.blueprint.bodies.values(), *request.variants]
    return [(body.node, body.variant) for body in named]


@dataclass(frozen=True)
class Again:
    """How many bodies run when one implementation was edited and everything else is recorded.

    The tree is the one of the whole request; walked are only the parts in which a wanted
    combination is. A super-step runs if something in it is edited or fails once more, then with all
    its nodes that are settled; whatever comes after it runs too.
    """

    alone: Mapping[str, Alone]
    choices: Mapping[str, Choices]
    edit: tuple[str, str]

    def wanted(self) -> set[str]:
        """The combinations that have the edited implementation."""
        node, name = self.edit
        return {c for c, chosen in self.choices.items() if chosen.get(node, "original") == name}

    def bodies(self) -> int:
        """All of them."""
        return self._of(sorted(self.choices), 0, frozenset(), runs=False)

    def _of(self, group: list[str], step: int, done: frozenset[str], *, runs: bool) -> int:
        if not self.wanted() & set(group):
            return 0
        # Those that are not wanted ran other code, after which they went their own way.
        walked = [name for name in group if name in self.wanted()]
        steps = self.alone[walked[0]].steps
        nodes = steps[step] if step < len(steps) else []
        if not nodes:
            return 0
        split = [n for n in nodes if len({self.choices[c].get(n) for c in group}) > 1]
        settled = frozenset(nodes) - frozenset(split)
        fails = self._fails(walked[0], step) and self._is_another(group)
        runs = runs or self._differs(walked[0], settled) or fails
        cost = len(settled - done) if runs else 0
        if not split:
            return cost + self._of(group, step + 1, frozenset(), runs=runs)
        parts: dict[str | None, list[str]] = defaultdict(list)
        for name in group:
            parts[self.choices[name].get(min(split))].append(name)
        return cost + sum(self._of(p, step, done | settled, runs=runs) for p in parts.values())

    def _differs(self, combination: str, nodes: frozenset[str]) -> bool:
        node, name = self.edit
        return node in nodes and self.choices[combination].get(node, "original") == name

    def _is_another(self, group: list[str]) -> bool:
        """A failed execution is not run again as long as it is the same one: while what was edited
        is a variant that its combinations have not chosen together."""
        return self.edit[1] == "original" or self.wanted() >= set(group)

    def _fails(self, combination: str, step: int) -> bool:
        run = self.alone[combination]
        return run.failed and step == len(run.steps) - 1
