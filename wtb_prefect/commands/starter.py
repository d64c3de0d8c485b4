"""`wtb init`: the starter project."""

from __future__ import annotations

from argparse import Namespace
from importlib import resources
from pathlib import Path

from wtb_prefect.commands.output import Output
from wtb_prefect.errors import InvalidInputError
from wtb_prefect.starter.corpus import write_corpus

_FILES = ("project.py", "questions.jsonl", "README.md")
_OURS = frozenset((*_FILES, "base_workspace", "__pycache__"))

_RUN = (
    "wtb run project.py:project --cases questions.jsonl"
    """ --matrix '{"chunk": "*", "retrieve": "*", "rerank": "*"}'"""
)


def init(args: Namespace, out: Output) -> int:
    """Writes the starter project and says what to do next."""
    folder = Path(args.folder)
    written = write_starter(folder)
    out.say(f"{folder}: {', '.join(written) or 'everything was there already'}")
    steps = [_RUN, "wtb results project.py:project"]
    if folder.resolve() != Path.cwd():
        steps.insert(0, f"cd {folder}")
    for step in steps:
        out.say(f"  {step}")
    out.data({"folder": folder.absolute(), "written": written, "next": steps})
    return 0


def write_starter(folder: Path) -> list[str]:
    """Writes what is not there yet; returns the names.

    Raises:
        InvalidInputError: the folder holds something else, or a changed file of the starter.
    """
    content = {name: _starter_file(name) for name in _FILES}
    _check_free(folder, content)
    folder.mkdir(parents=True, exist_ok=True)
    written = [name for name in _FILES if not (folder / name).exists()]
    for name in written:
        (folder / name).write_bytes(content[name])
    if not (folder / "base_workspace").exists():
        pages = write_corpus(folder / "base_workspace")
        written.append(f"base_workspace/corpus ({pages} pages)")
    return written


def _check_free(folder: Path, content: dict[str, bytes]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder} is a file, not a folder")
    present = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    foreign = [name for name in present if name not in _OURS and not name.startswith(".")]
    if foreign:
        raise InvalidInputError(f"{folder} is not empty: there is {', '.join(foreign[:5])}")
    for name, text in content.items():
        if name in present and (folder / name).read_bytes() != text:
            raise InvalidInputError(f"{folder / name} is there already and is not the starter's")


def _starter_file(name: str) -> bytes:
    return (resources.files("wtb_prefect.starter") / name).read_bytes()
