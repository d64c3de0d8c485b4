"""Faults planted in the product: the suite counts for something because it finds each of them."""

from __future__ import annotations

import pytest
from fault_points import TALLY, WHOLE, points_of, spread, violations_at
from warm import Warm


@pytest.mark.parametrize("mutant", ["direct write", "ledger before blobs"])
def test_a_mutant_is_found_by_killing_it(warm: Warm, mutant: str) -> None:
    """At the calls that touch contents; in the fast part the first violation is enough."""
    warm.put_back("commit")
    expected = warm.do("undisturbed", "commit")
    points = [p for p in points_of(warm, "commit", mutant) if "blobs/objects/" in p.text]
    found = []
    tried = 0
    for point in spread(points, 30):
        tried += 1
        found += violations_at(warm, "commit", "kill", point, expected, mutant)
        if found and not WHOLE:
            break
    assert found
    TALLY.mutants[mutant] = f"{len(found)} violations at {tried} points"


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
