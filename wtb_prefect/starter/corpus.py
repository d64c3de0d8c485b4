"""The demo's documents: the pages of the Python language reference that every Python carries."""

from pathlib import Path
from pydoc_data.topics import topics


def write_corpus(folder: Path) -> int:
    """Write every page as `corpus/<topic>.txt` below `folder`; return how many pages there are.

    A page that already has the right text is left alone, so a second call changes no file.
    """
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for topic, text in topics.items():
        page = corpus / f"{topic}.txt"
        content = text.encode("utf-8")
        if not page.is_file() or page.read_bytes() != content:
            page.write_bytes(content)
    return len(topics)
