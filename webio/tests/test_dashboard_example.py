"""The example dashboard for Grafana asks for figures that /metrics has."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from conftest import Cast
from webhooks.models import EngineTotal

DASHBOARD = Path(settings.BASE_DIR) / "docs/dashboards/webio.json"
GUIDE = Path(settings.BASE_DIR) / "docs/operations.md"
#: Metric names, and label names in `by (…)` and `{…}`.
METRIC = re.compile(r"\bwebio_\w+")
SELECTED = re.compile(r"(webio_\w+)\{(\w+)=\"(\w+)\"\}")
GROUPED = re.compile(r"by \(([\w, ]+)\) \((?:rate\()?(webio_\w+)")


def panels() -> list[dict[str, Any]]:
    """The dashboard's."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> list[str]:
    """What is asked of Prometheus."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


@pytest.fixture
def samples(acme: Cast, client: Client) -> dict[str, list[dict[str, str]]]:
    """The labels of each sample of /metrics by its name."""
    EngineTotal.objects.create(slot=0, delivered=1, upto_10=1)
    client.get("/healthz")
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_figure_it_asks_for_is_told(samples: dict[str, list[dict[str, str]]]) -> None:
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 10
    assert asked - set(samples) == set()


def test_every_figure_of_deliveries_is_in_it_and_in_the_guide(samples: dict[str, list[dict[str, str]]]) -> None:
    told = {name for name in samples if name.startswith("webio_deliveries_")}
    assert told - set(METRIC.findall(" ".join(expressions()))) == set()
    assert told - set(METRIC.findall(GUIDE.read_text())) == set()


def test_the_labels_it_uses_are_there(samples: dict[str, list[dict[str, str]]]) -> None:
    selected = [found for expression in expressions() for found in SELECTED.findall(expression)]
    grouped = [found for expression in expressions() for found in GROUPED.findall(expression)]
    assert selected
    assert grouped
    for name, label, value in selected:
        assert value in {labels.get(label) for labels in samples[name]}
    for labels, name in grouped:
        assert set(labels.split(", ")) <= set(samples[name][0])


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for one, other in combinations((panel["gridPos"] for panel in panels()), 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())
