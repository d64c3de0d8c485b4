"""The demo of `wtb init`: its questions, its documents, and that its variants really differ."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

from wtb_prefect.starter import project as starter
from wtb_prefect.starter.corpus import write_corpus

Node = Callable[[starter.SearchState], starter.SearchState]
Combination = tuple[str, str, str]
UseWorkspace = Callable[[Path], None]

QUESTIONS = Path(starter.__file__).with_name("questions.jsonl")
CHUNKERS: dict[str, Node] = {"original": starter.chunk, "by_section": starter.chunk_by_section}
RETRIEVERS: dict[str, Node] = {
    "original": starter.retrieve,
    "bm25": starter.retrieve_bm25,
    "tfidf": starter.retrieve_tfidf,
}
RERANKERS: dict[str, Node] = {
    "original": starter.rerank,
    "title_boost": starter.rerank_title_boost,
}
BASELINE: Combination = ("original", "original", "original")


def read_questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]


def run_all_combinations(use_workspace: UseWorkspace, folder: Path) -> dict[Combination, list[Any]]:
    """Run the nodes of all 12 combinations on all questions, sharing what they have in common."""
    states: dict[Combination, list[Any]] = {}
    for chunker, chunk in CHUNKERS.items():
        workspace = folder / chunker
        write_corpus(workspace)
        use_workspace(workspace)
        chunk({})
        starter.index({})
        for case in read_questions():
            for retriever, retrieve in RETRIEVERS.items():
                found = case["state"] | retrieve(case["state"])
                for reranker, rerank in RERANKERS.items():
                    state = found | rerank(found)
                    state |= starter.answer(state)
                    states.setdefault((chunker, retriever, reranker), []).append(state)
    return states


@pytest.fixture
def use_workspace(monkeypatch: pytest.MonkeyPatch) -> UseWorkspace:
    return lambda folder: monkeypatch.setattr(starter, "current_workspace", lambda: folder)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Combination, list[Any]]]:
    with pytest.MonkeyPatch.context() as patch:
        yield run_all_combinations(
            lambda folder: patch.setattr(starter, "current_workspace", lambda: folder),
            tmp_path_factory.mktemp("combinations"),
        )


def hits(states: list[Any]) -> int:
    expected = [case["expected"] for case in read_questions()]
    return sum(map(starter.hit_at_1, states, expected))


def test_questions_are_cases_with_known_pages() -> None:
    questions = read_questions()
    assert len(questions) >= 60
    assert max(Counter(case["id"] for case in questions).values()) == 1
    assert max(Counter(case["state"]["question"] for case in questions).values()) == 1
    for case in questions:
        assert set(case) == {"id", "state", "expected", "tags"}
        assert set(case["state"]) == {"question"}
        assert case["expected"] in topics


def test_questions_do_not_give_the_page_away() -> None:
    """A page about a keyword or a named thing is asked for in other words."""
    for case in read_questions():
        words = re.findall(r"\w+", case["state"]["question"].lower())
        assert case["expected"] not in words, case["id"]


def test_corpus_is_written_once(tmp_path: Path) -> None:
    assert write_corpus(tmp_path) == len(topics)
    pages = sorted((tmp_path / "corpus").iterdir())
    assert {page.stem for page in pages} == set(topics)
    assert (tmp_path / "corpus" / "assert.txt").read_text(encoding="utf-8") == topics["assert"]

    written_at = [page.stat().st_mtime_ns for page in pages]
    assert write_corpus(tmp_path) == len(topics)
    assert [page.stat().st_mtime_ns for page in pages] == written_at


def test_corpus_repairs_a_page_and_keeps_the_users_own(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "corpus" / "assert.txt").write_text("edited", encoding="utf-8")
    (tmp_path / "corpus" / "mine.txt").write_text("My page", encoding="utf-8")
    write_corpus(tmp_path)
    assert (tmp_path / "corpus" / "assert.txt").read_text(encoding="utf-8") == topics["assert"]
    assert (tmp_path / "corpus" / "mine.txt").read_text(encoding="utf-8") == "My page"


@pytest.mark.parametrize("chunker", CHUNKERS)
def test_chunking_and_indexing_give_the_same_bytes(
    chunker: str, tmp_path: Path, use_workspace: UseWorkspace
) -> None:
    written = []
    for name in ("first", "second"):
        workspace = tmp_path / name
        write_corpus(workspace)
        use_workspace(workspace)
        CHUNKERS[chunker]({})
        starter.index({})
        written.append([(workspace / f"{name}.json").read_bytes() for name in ("chunks", "index")])
    assert written[0] == written[1]
    assert len(written[0][1]) < 1_500_000


def test_chunkers_keep_every_page_and_cut_differently(
    tmp_path: Path, use_workspace: UseWorkspace
) -> None:
    write_corpus(tmp_path)
    (tmp_path / "corpus" / "mine.txt").write_text("My page\n\nhas no heading.", encoding="utf-8")
    use_workspace(tmp_path)
    cuts = []
    for chunk in CHUNKERS.values():
        chunk({})
        chunks = json.loads((tmp_path / "chunks.json").read_text(encoding="utf-8"))
        assert {piece["topic"] for piece in chunks} == {*topics, "mine"}
        cuts.append(chunks)
    assert cuts[0] != cuts[1]


def test_every_combination_ranks_differently(states: dict[Combination, list[Any]]) -> None:
    rankings = {
        json.dumps([starter.ranking(state) for state in found]) for found in states.values()
    }
    assert len(rankings) == len(states) == 12


def test_the_best_combination_clearly_beats_the_baseline(
    states: dict[Combination, list[Any]],
) -> None:
    shares = {name: hits(found) / len(found) for name, found in states.items()}
    assert max(shares.values()) >= shares[BASELINE] + 0.08
    assert min(shares.values()) > 0.1
    assert max(shares.values()) < 0.9


def test_states_are_small_and_plain_json(states: dict[Combination, list[Any]]) -> None:
    for found in states.values():
        for state in found:
            text = json.dumps(state)
            assert json.loads(text) == state
            assert len(text) < 5_000


def test_a_question_without_known_words_has_no_answer(
    tmp_path: Path, use_workspace: UseWorkspace
) -> None:
    write_corpus(tmp_path)
    use_workspace(tmp_path)
    starter.chunk({})
    starter.index({})
    for retrieve in RETRIEVERS.values():
        found = retrieve({"question": "zzqx wvvk"})
        assert found == {"candidates": []}
        assert starter.rerank_title_boost({"question": "zzqx wvvk"} | found) == found
        assert starter.answer(found) == {"topic": ""}
        assert starter.hit_at_1({"topic": ""}, "assert") is False
        assert starter.reciprocal_rank(found, "assert") == 0.0
