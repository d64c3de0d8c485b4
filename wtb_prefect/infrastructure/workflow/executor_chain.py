"""The executors of a project's nodes, from the outermost to the call of the implementation."""

from __future__ import annotations

from dataclasses import dataclass

from wtb_prefect.infrastructure.workflow.mock_nodes import MockableNodeExecutor
from wtb_prefect.infrastructure.workflow.node_executors import (
    AroundExecutor,
    DefaultNodeExecutor,
    NodeExecutor,
)
from wtb_prefect.infrastructure.workflow.recorded_nodes import RecordingNodeExecutor
from wtb_prefect.infrastructure.workflow.remote_nodes import RemoteNodes
from wtb_prefect.infrastructure.workflow.result_cache import FingerprintOf, ResultCache
from wtb_prefect.infrastructure.workflow.surroundings import ProcessSurroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorChain:
    """What stands around every node: mocks, recordings, current directory, cache, remote calls.

    `around` is put around a node's own executor (a debugger); then nothing answers from the cache,
    because nothing would stop in the node.
    """

    surroundings: ProcessSurroundings
    cache: ResultCache
    remote: RemoteNodes
    around: AroundExecutor | None = None

    def executor_of(self, node: str, variant: str, fingerprint_of: FingerprintOf) -> NodeExecutor:
        """How calls of this implementation are carried out."""
        executor = self.remote.wrap(DefaultNodeExecutor(), node, variant)
        if self.around is None:
            executor = self.cache.wrap(executor, node, variant, fingerprint_of)
        executor = self.surroundings.executor(executor)
        if self.around is not None:
            executor = self.around(node, executor)
        return MockableNodeExecutor(RecordingNodeExecutor(executor))
