"""Faults planted in the product: the suite counts for something because it finds each of them."""

from __future__ import annotations

import pytest
from fault_points import TALLY, WHOLE, points_of, spread, violations_at
from warm import Warm

BY_FAULTS = [
    ("direct write", "commit", "kill", "blobs/objects/", "bytes that are not its own"),
    ("ledger before blobs", "commit", "kill", "blobs/objects/", "critical missing_blob"),
    ("restore in place", "fork", "kill", "workspaces/", "half a workspace"),
    ("no way back", "update", "broken disk", "/old/", "a folder between old and new"),
    ("records late", "commit", "kill", "last.txt", "the end is another one"),
]


@pytest.mark.parametrize(("mutant", "name", "kind", "where", "words"), BY_FAULTS)
def test_a_mutant_is_found_by_faults(
    warm: Warm, mutant: str, name: str, kind: str, where: str, words: str
) -> None:
    """At the calls that it is about; in the fast part the first violation is enough."""
    found, tried = faults_in(warm, name, kind, where, words, mutant)
    assert found
    TALLY.mutants[mutant] = f"{len(found)} violations at {tried} points"


@pytest.mark.parametrize(("name", "where"), [("commit", "objects/tmp/"), ("fork", ".restoring-")])
def test_what_is_left_for_ever_is_found(warm: Warm, name: str, where: str) -> None:
    found, tried = faults_in(warm, name, "kill", where, "left at the end", then="nothing swept")
    assert found
    TALLY.mutants[f"nothing swept, {name}"] = f"{len(found)} violations at {tried} points"


def faults_in(
    warm: Warm,
    name: str,
    kind: str,
    where: str,
    words: str,
    mutant: str | None = None,
    then: str | None = None,
) -> tuple[list[str], int]:
    warm.put_back(name)
    expected = warm.do("undisturbed", name)
    points = [p for p in points_of(warm, name, mutant) if where in p.text]
    found: list[str] = []
    tried = 0
    for point in spread(points, 30):
        tried += 1
        wrong = violations_at(warm, name, kind, point, expected, mutant, then)
        found += [violation for violation in wrong if words in violation]
        if found and not WHOLE:
            break
    return found, tried


def test_a_claim_without_a_lease_is_found(warm: Warm) -> None:
    """A second processor looks for claims while the first one has some."""
    warm.put_back("outbox")
    alone = warm.do("two_processors")
    assert alone["first"] > 5
    assert alone["both"] == 0
    warm.put_back("outbox")
    both = warm.do("two_processors", mutant="no lease")["both"]
    assert both
    TALLY.mutants["no lease"] = f"{both} claims taken twice"


def test_a_lease_that_does_not_end_is_found(warm: Warm) -> None:
    warm.put_back("outbox")
    found = warm.do("leases_and_clocks", mutant="lease of a day")
    assert found["after the lease"] == 0
    TALLY.mutants["lease of a day"] = f"{found['claims']} claims stuck"


def test_ids_by_the_clock_are_found(warm: Warm) -> None:
    warm.put_back("commit")
    _, issues = warm.do("at_another_time", "commit", -1, mutant="ids by the clock")
    assert "missing_checkpoint" in str(issues)
    TALLY.mutants["ids by the clock"] = f"{len(issues)} issues"


def test_a_clean_up_without_grace_is_found(warm: Warm) -> None:
    warm.put_back("commit")
    assert warm.do("grace_and_clocks", mutant="no grace")["now"] == [True, False]
    TALLY.mutants["no grace"] = "a young content is gone"


def test_a_check_that_does_not_read_is_found(warm: Warm) -> None:
    found = warm_damage(warm, "check of names")
    assert found["found by the deep check"] < found["damaged"]
    missed = found["damaged"] - found["found by the deep check"]
    TALLY.mutants["check of names"] = f"{missed} damages missed"


def test_a_restore_that_believes_is_found(warm: Warm) -> None:
    found = warm_damage(warm, "no hash check")
    assert found["silent"]
    TALLY.mutants["no hash check"] = f"{found['silent']} silent restores"


def warm_damage(warm: Warm, mutant: str | None = None) -> dict[str, int]:
    """Every content of a commit of 200 files is damaged in every way."""
    warm.put_back("many")
    warm.do("run", "many")
    answer: dict[str, int] = warm.do("damage_all", mutant=mutant)
    return answer


def test_every_damaged_content_is_found(warm: Warm) -> None:
    found = warm_damage(warm)
    assert found["damaged"] >= 3 * 200
    assert found["silent"] == 0
    assert found["restores that say so"] == found["damaged"]
    assert found["found by the deep check"] == found["damaged"]
    for key, count in found.items():
        TALLY.checks[f"damaged contents, {key}"] += count
