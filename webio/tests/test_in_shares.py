"""How tests are shared among processes: each is run once, and what takes long begins first in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from conftest import in_shares

pytestmark = pytest.mark.once


@dataclass(eq=False)
class Item:
    """A test, as far as sharing looks at it."""

    long: bool

    def get_closest_marker(self, name: str) -> bool:
        return self.long


def shares(items: list[Any], count: int) -> list[list[Any]]:
    """What `--dist worksteal` gives each process at first."""
    found, begun = [], 0
    for left in range(count, 0, -1):
        size = (len(items) - begun) // left
        found.append(items[begun : begun + size])
        begun += size
    return found


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_each_test_is_in_one_share_and_long_ones_come_first(processes: int) -> None:
    for long in range(9):
        for short in range(20):
            items = [Item(False) for _ in range(short)] + [Item(True) for _ in range(long)]
            ordered = in_shares(items, processes)  # type: ignore[arg-type]
            assert sorted(map(id, ordered)) == sorted(map(id, items))
            for share in shares(ordered, processes):
                kinds = [item.long for item in share]
                assert kinds == sorted(kinds, reverse=True)


def test_long_ones_are_spread_evenly() -> None:
    items = [Item(True) for _ in range(7)] + [Item(False) for _ in range(23)]
    ordered = in_shares(items, 3)  # type: ignore[arg-type]
    assert [sum(item.long for item in share) for share in shares(ordered, 3)] == [3, 2, 2]
