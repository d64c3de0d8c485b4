"""What README tells people to type works, word by word, and what it promises is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = str(Path(sys.executable).parent)
ENVIRONMENT = {**os.environ, "PATH": SCRIPTS + os.pathsep + os.environ["PATH"]}


def commands(section: str) -> list[str]:
    """The `$` lines of the console blocks of a section."""
    text = README.split(f"## {section}", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[2:].split("   #")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.mark.timeout(280)
def test_the_first_five_minutes(tmp_path: Path) -> None:
    """init, plan, run inline and results, in the order README gives them."""
    folder = tmp_path
    outputs = {}
    for command in commands("First five minutes"):
        words = shlex.split(command)
        if words[0] == "cd":
            folder = folder / words[1]
        elif words[0] == "wtb" and "bench.py:project" not in command:
            done = subprocess.run(
                words,
                check=False,
                cwd=folder,
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=250,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            outputs[words[1]] = done.stdout
    assert {"init", "plan", "run", "results"} <= set(outputs)
    assert "retrieve=bm25" in outputs["results"]
    assert "216 new" in outputs["plan"]


@pytest.mark.timeout(280)
def test_going_back_in_time(tmp_path: Path) -> None:
    """The commands of the section, in its order, on a fresh starter project."""
    wtb(tmp_path, "wtb init my-bench")
    folder = tmp_path / "my-bench"
    execution = checkpoint = ""
    outputs: dict[str, list[str]] = {}
    for command in commands("Go back in time"):
        line = command.replace("EXECUTION", execution).replace("CHECKPOINT", checkpoint)
        if "BATCH" in line:
            batch = "--cases questions.jsonl --limit 2 --batch-id small --runner inline"
            wtb(folder, f"wtb run project.py:project {batch}")
            line = line.replace("BATCH", "small") + " --runner inline"
        done = wtb(folder, line, ends=(0, 5))
        outputs.setdefault(command.split()[1], []).append(done)
        if command.startswith("wtb run"):
            assert "paused before rerank" in done
            execution = done.split()[1].rstrip(":")
        if command.startswith("wtb history"):
            # The last but one: after rerank, before answer.
            checkpoint = re.findall(r"[0-9a-f-]{36}", done)[-2]
    assert f"{execution}: completed" in outputs["resume"][0]
    assert f"{execution}: paused before retrieve" in outputs["rollback"][0]
    assert f"{execution}: paused before rerank" in outputs["resume"][1]
    assert ": completed" in outputs["branch"][0]
    assert "4 run now" in outputs["branch"][1], outputs["branch"][1]
    assert (folder / "files-then" / "corpus").is_dir()


def wtb(folder: Path, command: str, ends: tuple[int, ...] = (0,)) -> str:
    """What a command printed."""
    done = subprocess.run(
        shlex.split(command),
        check=False,
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode in ends, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def told(output: str) -> list[str]:
    """What a demo prints, without its times, its server's address and trailing blanks."""
    lines = [line.rstrip() for line in output.splitlines() if "watch at" not in line]
    return [re.sub(r"(\(72\) +72) +[\d.]+$|^(.*\bdone)  seconds$", r"\1\2", line) for line in lines]


@pytest.mark.timeout(280)
def test_the_demo_prints_what_readme_shows(tmp_path: Path) -> None:
    """Its figures, its counts and its ids; the runner changes none of them."""
    block = README.split("<!-- demo output: begin -->\n```text\n")[1].split("\n```\n")[0]
    printed = told(wtb(tmp_path, "wtb demo --runner inline"))
    assert len(printed) > 20
    assert printed == told(block)


def test_the_two_commands_are_make_targets() -> None:
    """`make demo` and `make test` exist, and CI runs README's test command."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in commands("Two commands"):
        assert command.split()[1] in targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_example_runs(tmp_path: Path) -> None:
    """The smallest bench, as its first lines say."""
    example = ROOT / "examples" / "minimal"
    for name in ("bench.py", "cases.jsonl"):
        (tmp_path / name).write_text((example / name).read_text())
    words = ["wtb", "run", "bench.py:project", "--cases", "cases.jsonl", "--variant", "greet=*"]
    done = subprocess.run(
        [*words, "--runner", "inline"],
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "greet=formal" in done.stdout
