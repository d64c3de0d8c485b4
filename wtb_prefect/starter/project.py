"""Find the page of the Python language reference that answers a question.

The graph is chunk -> index -> retrieve -> rerank -> answer. Three of its nodes have rival
implementations further down; `wtb` runs every combination of them and says which one is best.

The documents are files in the workspace, not values in the state: a checkpoint then holds a
question and ten candidates instead of half a megabyte of text, and `wtb` keeps the files of every
step itself.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from langgraph.graph import END, START, StateGraph
from rank_bm25 import BM25Okapi  # type: ignore[import-untyped]

from wtb_prefect import WorkflowProject, current_workspace

HERE = Path(__file__).parent

CHUNK_CHARACTERS = 1000
SECTION_CHARACTERS = 2000
PASSAGE_CHARACTERS = 160
CANDIDATES = 10
TITLE_WEIGHT = 0.2

# `for`, `if`, `in` and the like are here too: in a question they are nearly always plain English.
COMMON_WORDS = (
    "a an and any are as at be but by can do does for from has have how i if in into is it its me"
    " my no not of on or out so some than that the then there this to up was were what when which"
    " why will with would"
)
STOP_WORDS = frozenset(COMMON_WORDS.split())


class Chunk(TypedDict):
    """A piece of a page, as `chunk` writes it to chunks.json."""

    topic: str
    title: str
    text: str


class IndexedChunk(TypedDict):
    """What a search needs to know of a chunk, as `index` writes it to index.json."""

    topic: str
    title: str
    passage: str
    terms: list[int]


class Index(TypedDict):
    """All chunks, and the number that stands for each term: numbers are small and fast."""

    chunks: list[IndexedChunk]
    vocabulary: dict[str, int]


class Candidate(TypedDict):
    """A page that may answer the question, with its best passage."""

    topic: str
    title: str
    passage: str
    score: float


class SearchState(TypedDict, total=False):
    """The state of the graph: small, and plain JSON."""

    question: str
    chunk_count: int
    term_count: int
    candidates: list[Candidate]
    topic: str


# --- The graph: its node functions are the variant `original` -------------------------------------


def chunk(state: SearchState) -> SearchState:
    """Cut every page into pieces of the same length, wherever the cut falls."""
    del state  # what this node reads is in the workspace
    chunks: list[Chunk] = [
        {"topic": topic, "title": title, "text": text[start : start + CHUNK_CHARACTERS]}
        for topic, title, text in read_pages()
        for start in range(0, len(text), CHUNK_CHARACTERS)
    ]
    write_json("chunks.json", chunks)
    return {"chunk_count": len(chunks)}


def index(state: SearchState) -> SearchState:
    """Turn the chunks into the terms that a search compares."""
    del state  # what this node reads is in the workspace
    vocabulary: dict[str, int] = {}
    indexed: list[IndexedChunk] = [
        {
            "topic": piece["topic"],
            "title": piece["title"],
            "passage": " ".join(piece["text"][:PASSAGE_CHARACTERS].split()),
            "terms": [
                vocabulary.setdefault(term, len(vocabulary)) for term in terms(piece["text"])
            ],
        }
        for piece in read_chunks()
    ]
    write_json("index.json", {"chunks": indexed, "vocabulary": vocabulary})
    return {"term_count": len(vocabulary)}


def retrieve(state: SearchState) -> SearchState:
    """Count how many of the question's terms a chunk has."""
    searched = read_index()
    wanted = set(known_terms(state["question"], searched))
    scores = [float(len(wanted.intersection(piece["terms"]))) for piece in searched["chunks"]]
    return {"candidates": best_pages(searched, scores)}


def rerank(state: SearchState) -> SearchState:
    """Keep the order of the search."""
    return {"candidates": state["candidates"]}


def answer(state: SearchState) -> SearchState:
    """Name the page to read."""
    candidates = state["candidates"]
    return {"topic": candidates[0]["topic"] if candidates else ""}


def build_graph() -> StateGraph[SearchState]:
    """Build the workflow; `wtb` compiles it, once for each combination of variants."""
    graph = StateGraph(SearchState)
    graph.add_node("chunk", chunk)
    graph.add_node("index", index)
    graph.add_node("retrieve", retrieve)
    graph.add_node("rerank", rerank)
    graph.add_node("answer", answer)
    graph.add_edge(START, "chunk")
    graph.add_edge("chunk", "index")
    graph.add_edge("index", "retrieve")
    graph.add_edge("retrieve", "rerank")
    graph.add_edge("rerank", "answer")
    graph.add_edge("answer", END)
    return graph


project = WorkflowProject(
    name="docs-search",
    graph=build_graph,
    db_path=HERE / ".wtb" / "wtb.db",
    output_dir=HERE / ".wtb" / "outputs",
    workspace=HERE / "base_workspace",
)


# These two depend on the files alone, not on the question: each way to chunk is indexed once for
# all questions, and the index is given to every execution.
project.cached("chunk", reads=[])
project.cached("index", reads=[])


# --- Variants: other ways to do the work of a node ------------------------------------------------


@project.variant("chunk", "by_section")
def chunk_by_section(state: SearchState) -> SearchState:
    """Cut at headings, long sections at paragraphs too; every chunk names its section."""
    del state  # what this node reads is in the workspace
    chunks: list[Chunk] = [
        {"topic": topic, "title": title, "text": f"{title}\n{heading}\n{body}"}
        for topic, title, text in read_pages()
        for heading, section in sections(text)
        for body in paragraphs(section)
    ]
    write_json("chunks.json", chunks)
    return {"chunk_count": len(chunks)}


@project.variant("retrieve", "bm25")
def retrieve_bm25(state: SearchState) -> SearchState:
    """Rank by BM25: rare terms count more, and repeating a term counts less and less."""
    searched = read_index()
    search = BM25Okapi([piece["terms"] for piece in searched["chunks"]])
    scores = search.get_scores(known_terms(state["question"], searched)).tolist()
    return {"candidates": best_pages(searched, scores)}


@project.variant("retrieve", "tfidf")
def retrieve_tfidf(state: SearchState) -> SearchState:
    """Rank by tf-idf, divided by the root of the chunk's length."""
    searched = read_index()
    chunks = searched["chunks"]
    scores = [0.0] * len(chunks)
    for term in sorted(set(known_terms(state["question"], searched))):
        counts = [piece["terms"].count(term) for piece in chunks]
        rarity = math.log(len(chunks) / sum(count > 0 for count in counts))
        for number, count in enumerate(counts):
            if count:
                length = math.sqrt(len(chunks[number]["terms"]))
                scores[number] += (1 + math.log(count)) * rarity**2 / length
    return {"candidates": best_pages(searched, scores)}


@project.variant("rerank", "title_boost")
def rerank_title_boost(state: SearchState) -> SearchState:
    """Prefer pages whose title shares terms with the question."""
    question = set(terms(state["question"]))
    boosted: list[Candidate] = []
    for candidate in state["candidates"]:
        title = set(terms(candidate["title"]))
        share = len(title & question) / len(title) if title else 0.0
        score = round(candidate["score"] * (1 + TITLE_WEIGHT * share), 6)
        boosted.append({**candidate, "score": score})
    return {"candidates": sorted(boosted, key=lambda candidate: -candidate["score"])}


# --- Evaluators: what makes an answer good --------------------------------------------------------


@project.evaluator(goal="max", primary=True)
def hit_at_1(state: SearchState, expected: str) -> bool:
    """Tell whether the answer is the right page."""
    return state["topic"] == expected


@project.evaluator
def hit_at_5(state: SearchState, expected: str) -> bool:
    """Tell whether the right page is among the first five candidates."""
    return expected in ranking(state)[:5]


@project.evaluator
def reciprocal_rank(state: SearchState, expected: str) -> float:
    """Give 1 for the first place, 1/2 for the second, and so on; 0 for a page not found."""
    pages = ranking(state)
    return 1 / (pages.index(expected) + 1) if expected in pages else 0.0


# --- What the functions above share ---------------------------------------------------------------


def ranking(state: SearchState) -> list[str]:
    """List the candidates' topics, best first."""
    return [candidate["topic"] for candidate in state["candidates"]]


def terms(text: str) -> list[str]:
    """List the words of a text in lower case, without the commonest ones and without endings."""
    words = re.findall(r"\w+", text.lower())
    return [stem(word) for word in words if word not in STOP_WORDS]


def stem(word: str) -> str:
    """Cut off an ending, so that `assigned`, `assigning` and `assigns` become one term."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) > len(ending) + 3:
            return word.removesuffix(ending)
    return word


def read_pages() -> Iterator[tuple[str, str, str]]:
    """Yield topic, title (the first line) and text of every page, in the order of the topics."""
    pages = (current_workspace() / "corpus").glob("*.txt")
    for page in sorted(pages, key=lambda page: page.stem):
        text = page.read_text(encoding="utf-8")
        yield page.stem, text.split("\n", 1)[0].replace('"', ""), text


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield heading and body of each section; a heading is a line underlined with *, = or -."""
    parts = re.split(r"^(.+)\n[*=-]{3,}\n", text, flags=re.MULTILINE)
    if parts[0].strip():
        yield "", parts[0]
    yield from zip(parts[1::2], parts[2::2], strict=True)


def paragraphs(section: str) -> Iterator[str]:
    """Yield a section in pieces of whole paragraphs, as long as they may be."""
    piece = ""
    for paragraph in section.split("\n\n"):
        if piece and len(piece) + len(paragraph) > SECTION_CHARACTERS:
            yield piece
            piece = ""
        piece += paragraph + "\n\n"
    if piece.strip():
        yield piece


def known_terms(question: str, searched: Index) -> list[int]:
    """List the numbers of the question's terms, without those that occur in no chunk."""
    vocabulary = searched["vocabulary"]
    return [vocabulary[term] for term in terms(question) if term in vocabulary]


def best_pages(searched: Index, scores: Sequence[float]) -> list[Candidate]:
    """Rank the pages by their best chunk; equal scores keep the order of the topics."""
    order = sorted(range(len(scores)), key=lambda number: -scores[number])
    best: dict[str, Candidate] = {}
    for number in order:
        piece = searched["chunks"][number]
        if scores[number] > 0 and piece["topic"] not in best and len(best) < CANDIDATES:
            best[piece["topic"]] = {
                "topic": piece["topic"],
                "title": piece["title"],
                "passage": piece["passage"],
                "score": round(scores[number], 6),
            }
    return list(best.values())


def read_chunks() -> list[Chunk]:
    """Read what the node `chunk` wrote into this execution's own folder."""
    file = current_workspace() / "chunks.json"
    chunks: list[Chunk] = json.loads(file.read_text(encoding="utf-8"))
    return chunks


def read_index() -> Index:
    """Read what the node `index` wrote into this execution's own folder."""
    file = current_workspace() / "index.json"
    searched: Index = json.loads(file.read_text(encoding="utf-8"))
    return searched


def write_json(name: str, content: object) -> None:
    """Write JSON with sorted keys: the same content is then the same bytes, and is stored once."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    (current_workspace() / name).write_text(text, encoding="utf-8")
