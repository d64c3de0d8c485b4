"""The node result cache: a declared node runs once for equal code, state keys and files."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langgraph._internal._constants import CONFIG_KEY_SCRATCHPAD
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from wtb_prefect.domain.identifiers import digest
from wtb_prefect.domain.interfaces.unit_of_work import OpenUnitOfWork
from wtb_prefect.domain.interfaces.workflow_engine import StepObserver
from wtb_prefect.domain.node_result import CachedNode, NodeResult, NodeStart, ReturnValue
from wtb_prefect.infrastructure.workflow.body_context import body_context
from wtb_prefect.infrastructure.workflow.cached_nodes import CachedNodes, DeclaredState
from wtb_prefect.infrastructure.workflow.claims import Claim, Claims
from wtb_prefect.infrastructure.workflow.fingerprint import OPAQUE
from wtb_prefect.infrastructure.workflow.node_executors import NodeCall, NodeExecutor
from wtb_prefect.infrastructure.workflow.same_value import difference

ROOT = "__root__"
"""The state key of a graph whose state is one value instead of keys."""

FingerprintOf = Callable[[str, str], str]
"""(node, variant) -> the fingerprint of the implementation."""

_RECENT_TREES = 256
_UNSTORABLE = (TypeError, ValueError, OverflowError, RecursionError)

logger = logging.getLogger("wtb_prefect.cache")


class ResultCache:
    """The cache of one project: its declarations, its ledger, and who computes what right now.

    `surroundings` is the fingerprint of what nodes get besides state and files.
    """

    def __init__(
        self,
        workflow_id: str,
        declared: CachedNodes,
        surroundings: str,
        serializer: JsonPlusSerializer,
        open_uow: OpenUnitOfWork,
        locks: Path,
    ) -> None:
        self.workflow_id = workflow_id
        self.serializer = serializer
        self.claims = Claims(locks)
        self._declared = declared
        self._surroundings = surroundings
        self._open_uow = open_uow
        self._trees: OrderedDict[str, str] = OrderedDict()
        self._said: set[tuple[str, str]] = set()

    def wrap(
        self, inner: NodeExecutor, node: str, variant: str, fingerprint_of: FingerprintOf
    ) -> NodeExecutor:
        """The executor of a node that asks the cache first, if the node is declared as cached."""
        if (node, variant) not in self._declared:
            return inner
        spec, state_keys = self._declared[node, variant]
        code = fingerprint_of(node, variant)
        # Every run of the project has the same context and begins with the same store.
        opaque = OPAQUE if OPAQUE in (code[0], self._surroundings[0]) else ""
        fingerprint = opaque + digest(code, self._surroundings)
        return CachingExecutor(self, spec, fingerprint, state_keys, inner)

    def find(self, key: str) -> NodeResult | None:
        """The result of a key, if there is one."""
        with self._open_uow() as uow:
            return uow.node_results.get(key)

    def files_digest(self, start: NodeStart) -> str:
        """What identifies the files a node starts with, however they came to be.

        A commit never changes: its digest is remembered, so that its files (80 rows, 3 ms) are read
        once in a process and not once per execution.
        """
        known = self._trees.get(start.commit_id or "")
        if known is None:
            known = digest([[m.path, m.blob_id, m.mode, m.is_symlink] for m in _sorted(start.tree)])
            self._trees[start.commit_id or ""] = known
            if len(self._trees) > _RECENT_TREES:
                self._trees.popitem(last=False)
        return known

    def say(self, node: str, why: str) -> None:
        """Why results of a node are not kept; said once in a process."""
        if (node, why) not in self._said:
            self._said.add((node, why))
            logger.warning("results of node %r are not kept: %s", node, why)


class CachingExecutor:
    """Answers a call from the cache, or calls the inner executor and has the result kept.

    The node sees only what it declared to read, whether a result is used or not: a key that is
    missing in the declaration fails at the first call instead of giving an old result later.
    """

    def __init__(
        self,
        cache: ResultCache,
        spec: CachedNode,
        fingerprint: str,
        state_keys: frozenset[str],
        inner: NodeExecutor,
    ) -> None:
        self._cache = cache
        self._spec = spec
        self._fingerprint = fingerprint
        self._state_keys = state_keys
        self._inner = inner

    async def execute(self, call: NodeCall) -> Any:
        """See `NodeExecutor.execute`."""
        call = dataclasses.replace(call, state=self._seen(call.state))
        context = body_context.get(None)
        observer = context.observer if context is not None else None
        if context is None or observer is None:
            return await self._inner.execute(call)
        start = await observer.node_start(call.task_id)
        key = None if start is None else self._key(call.state, start)
        if key is None:
            return await self._inner.execute(call)
        found = self._cache.find(key)
        if found is None:
            claim = await self._cache.claims.take(key)
            context.at_end.callback(claim.release)  # whatever becomes of this step
            found = self._cache.find(key)  # whoever had the claim before may have kept it
            if found is None:
                return await self._compute(call, key, claim, observer)
            claim.release()
        await observer.replay(found)
        return self._cache.serializer.loads_typed((found.encoding, found.payload))

    def _seen(self, state: Any) -> Any:
        if not isinstance(state, Mapping) or ROOT in self._spec.reads:
            return state
        return DeclaredState(state, self._spec, self._state_keys)

    async def _compute(self, call: NodeCall, key: str, claim: Claim, observer: StepObserver) -> Any:
        """Runs the body; the claim is held until its record is in the ledger, or it failed."""
        kept = None
        try:
            before = self._values(call.state)
            value = await self._inner.execute(call)
            if before != self._values(call.state):
                self._cache.say(call.node, "it changes its input in place")
            elif _has_asked(call):
                self._cache.say(call.node, "it depends on answers to its questions")
            else:
                kept = self._kept(key, value, claim)
        finally:
            if kept is None:
                claim.release()
        if kept is not None:
            observer.keep_result(call.task_id, kept)
        return value

    def _key(self, state: Any, start: NodeStart) -> str | None:
        """The digest of all that the node depends on; None if that cannot be told."""
        values = self._values(state)
        if values is None:
            return None
        return digest(
            "node-result",
            self._cache.workflow_id,
            self._spec.node,
            self._fingerprint,
            # Code that could not be identified may differ between processes started at other times.
            start.batch_id if self._fingerprint.startswith(OPAQUE) else None,
            values,
            self._cache.files_digest(start),
        )

    def _values(self, state: Any) -> list[list[str]] | None:
        """The declared values, serialised and digested; None if one is not what it serialises to,
        because then another value may serialise to the same."""
        found = []
        for name, value in self._declared_values(state).items():
            try:
                encoding, payload = self._cache.serializer.dumps_typed(value)
                lost = difference(value, self._load(encoding, payload), f"state key {name!r}")
            except _UNSTORABLE as exc:
                lost = f"state key {name!r} cannot be serialised: {exc}"
            if lost is not None:
                self._cache.say(self._spec.node, lost)
                return None
            found.append([name, encoding, hashlib.sha256(payload).hexdigest()])
        return found

    def _declared_values(self, state: Any) -> dict[str, Any]:
        if isinstance(state, DeclaredState):
            return {
                name: state[name] for name in self._spec.reads if dict.__contains__(state, name)
            }
        if dataclasses.is_dataclass(state) or hasattr(type(state), "model_fields"):
            found = {name: getattr(state, name) for name in self._spec.reads if name != ROOT}
            return {**found, ROOT: state} if ROOT in self._spec.reads else found
        return {ROOT: state}  # one value, which cannot be taken apart

    def _kept(self, key: str, value: Any, claim: Claim) -> ReturnValue | None:
        try:
            encoding, payload = self._cache.serializer.dumps_typed(value)
            lost = difference(value, self._load(encoding, payload), "what it returns")
        except _UNSTORABLE as exc:
            lost = f"what it returns cannot be serialised: {exc}"
        if lost is not None:
            self._cache.say(self._spec.node, lost)
            return None
        return ReturnValue(
            key=key,
            node=self._spec.node,
            fingerprint=self._fingerprint,
            encoding=encoding,
            payload=payload,
            settled=claim.release,
        )

    def _load(self, encoding: str, payload: bytes) -> Any:
        return self._cache.serializer.loads_typed((encoding, payload))


def _has_asked(call: NodeCall) -> bool:
    """Whether this call of the node got an answer from `interrupt()`."""
    scratchpad = call.config.get("configurable", {}).get(CONFIG_KEY_SCRATCHPAD)
    return scratchpad is not None and scratchpad.interrupt_counter() > 0


def _sorted(tree: Mapping[str, Any]) -> list[Any]:
    return [tree[path] for path in sorted(tree)]
