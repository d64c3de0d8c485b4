"""What docs/architecture.md says exists, exists."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
GUIDES = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "reliability.md")
PAGES = [PAGE, *GUIDES, *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
TABLE = "## From the WTB architecture document to this code"

CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"(wtb_prefect(?:\.\w+)*)(?::([\w.]+))?")
TEST = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")
FILE = re.compile(r"(?:wtb_prefect|tests|docs|benchmarks)/[\w/.]+")

THEMES = (
    "executions under control",
    "reliability",
    "comparison",
    "outside interfaces",
    "environments",
)
HEADS = ("document", "feature")
NO_TEST = ("no test of its own yet", "not carried over")

# The names the table must account for, by section of the document.
DOCUMENT = """
rest/app.py rest/dependencies.py rest/models.py routes/batch.py routes/checkpoint.py
routes/execution.py routes/health.py routes/variant.py routes/workflow.py grpc/protos/wtb.proto
websocket/handlers.py
factories.py actor_lifecycle.py BatchTestRunner ExecutionController langgraph_node_replacer.py
NodeReplacer ParityChecker project_service.py RayBatchRunner
environment_events.py langgraph_events.py
IBatchTestRunner ICheckpointStore IEvaluator IEvaluationEngine IExecutionController
IFileTrackingService INodeExecutor INodeReplacer IVariantRegistry IStateAdapter IUnitOfWork
TestWorkflow WorkflowNode WorkflowEdge Execution ExecutionState ExecutionStatus Checkpoint
CheckpointId ExecutionHistory BatchTest VariantCombination BatchTestResult CheckpointFile
EvaluationResult FileCommit FileMemento BlobId NodeBoundary OutboxEvent IntegrityReport RepairAction
Workspace WorkspaceConfig WorkspaceStrategy
config.py factory.py file_processing_orm.py inmemory_unit_of_work.py models.py setup.py
003_postgresql_production.sql repositories/base.py environment/ integrity/
TestBench WorkflowProject
InMemoryStateAdapter LangGraphStateAdapter AgentGitStateAdapter InMemoryCheckpointStore
LangGraphCheckpointStore SqliteCheckpointStore AccuracyEvaluator LatencyEvaluator CustomEvaluator
DefaultNodeExecutor MockNodeExecutor RemoteNodeExecutor
IRepository IReadRepository IWriteRepository IExecutionRunner IExecutionInspector
SQLAlchemyUnitOfWork workflows executions variants batch_tests evaluation_results node_boundaries
checkpoint_files outbox audit_logs OutboxProcessor CHECKPOINT_VERIFY FILE_COMMIT_VERIFY
CHECKPOINT_FILE_LINK_VERIFY ROLLBACK_FILE_RESTORE PENDING PROCESSED FAILED
WTBEventBus
"""
CATEGORIES = ("Execution:", "Node:", "Checkpoint:", "File:", "Ray:", "Workspace:")


def references(pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Everything in code font, on any page, that is wholly of this form."""
    quoted = {text for page in PAGES for text in CODE.findall(page.read_text(encoding="utf-8"))}
    return [found for text in sorted(quoted) if (found := pattern.fullmatch(text))]


def rows() -> list[list[str]]:
    """The rows of the tables: document or feature, here, proof."""
    _, _, table = PAGE.read_text(encoding="utf-8").partition(TABLE)
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in HEADS and set(row[0]) != {"-"}]


@pytest.mark.parametrize("found", references(NAME), ids=lambda found: found[0])
def test_every_name_exists(found: re.Match[str]) -> None:
    module, name = found.groups()
    loaded = import_module(module)
    if name:
        assert reduce(getattr, name.split("."), loaded) is not None


@pytest.mark.parametrize("found", references(TEST), ids=lambda found: found[0])
def test_every_test_exists(found: re.Match[str]) -> None:
    path, name = found.groups()
    source = (ROOT / path).read_text(encoding="utf-8")
    if name:
        assert re.search(rf"^\s*(?:async )?(?:def|class) {name}\b", source, re.MULTILINE)


@pytest.mark.parametrize("found", references(FILE), ids=lambda found: found[0])
def test_every_path_exists(found: re.Match[str]) -> None:
    if found[0] != "benchmarks/results.json":  # written by `make bench`
        assert (ROOT / found[0]).exists()


def test_every_row_is_proved_or_says_what_is_missing() -> None:
    for row in rows():
        assert len(row) == 3, row
        for part in re.split(r"[;,] (?=to come|`|no test|not carried)", row[2]):
            theme = part.removeprefix("to come: ")
            quoted = CODE.fullmatch(part)
            is_test = quoted is not None and TEST.fullmatch(quoted[1])
            assert is_test or part in NO_TEST or (theme != part and theme in THEMES), row


def test_every_row_says_where_or_that_it_is_to_come() -> None:
    for document, here, proof in rows():
        is_named = any(NAME.fullmatch(text) for text in CODE.findall(here))
        assert is_named or "to come" in proof or proof == "not carried over", document


@pytest.mark.parametrize("name", DOCUMENT.split())
def test_every_name_of_the_document_has_a_row(name: str) -> None:
    assert any(name in CODE.findall(row[0]) for row in rows())


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_event_category_has_a_row(category: str) -> None:
    assert any(row[0].startswith(category) for row in rows())
