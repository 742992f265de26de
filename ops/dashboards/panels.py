"""The parts of a Grafana dashboard that ours need, as the JSON model of Grafana 10 and later.

A panel says what it shows; where it stands follows from the order: rows of 24 columns are
filled from the left, and numbers are given when the dashboard is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

SCHEMA: Final = 39  # of Grafana 10.1
COLUMNS: Final = 24
Json = dict[str, Any]

PROMETHEUS: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}
INFINITY: Final[Json] = {"type": "yesoreyeram-infinity-datasource", "uid": "${api}"}


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and the words of its legend."""

    expr: str
    legend: str = ""
    instant: bool = False

    def model(self, ref: str) -> Json:
        return {
            "refId": ref,
            "datasource": PROMETHEUS,
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "instant": self.instant,
            "range": not self.instant,
            "format": "table" if self.instant and not self.legend else "time_series",
        }


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of our API as a table, through the Infinity datasource's jq parser."""

    path: str
    selector: str

    def model(self, ref: str) -> Json:
        return {
            "refId": ref,
            "datasource": INFINITY,
            "type": "json",
            "parser": "jq-backend",
            "source": "url",
            "format": "table",
            "url": self.path,
            "url_options": {"method": "GET", "data": ""},
            "root_selector": self.selector,
            "columns": [],
            "filters": [],
        }


@dataclass(frozen=True, slots=True)
class Panel:
    """`steps` are (from, colour) of thresholds; the first one begins at nothing."""

    kind: str
    title: str
    queries: tuple[Query | Rows, ...]
    unit: str
    help: str
    width: int = 12
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    minimum: float | None = 0
    maximum: float | None = None
    stack: bool = False
    by_name: bool = False  # of a stat: the legend is what is to be read
    words: tuple[tuple[str, str, str], ...] = ()  # value, text, colour
    columns: tuple[tuple[str, str, str], ...] = ()  # of tables: field, its name, unit

    def model(self, number: int, x: int, y: int) -> Json:
        """As Grafana has it."""
        defaults: Json = {
            "unit": self.unit,
            "thresholds": {
                "mode": "absolute",
                "steps": [{"value": value, "color": color} for value, color in self.steps],
            },
            "mappings": self._mappings(),
        }
        if self.minimum is not None:
            defaults["min"] = self.minimum
        if self.maximum is not None:
            defaults["max"] = self.maximum
        if self.kind == "timeseries":
            defaults["color"] = {"mode": "palette-classic"}
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 20 if self.stack else 5,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stack else "none", "group": "A"},
            }
        else:
            defaults["color"] = {"mode": "thresholds"}
        letters = "ABCDEFGHIJ"
        first = self.queries[0]
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.help,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": INFINITY if isinstance(first, Rows) else PROMETHEUS,
            "targets": [q.model(letters[at]) for at, q in enumerate(self.queries)],
            "fieldConfig": {"defaults": defaults, "overrides": self._overrides()},
            "options": self._options(),
            "transformations": self._transformations(),
        }

    def _mappings(self) -> list[Json]:
        if not self.words:
            return []
        options = {
            value: {"text": text, "color": color, "index": at}
            for at, (value, text, color) in enumerate(self.words)
        }
        return [{"type": "value", "options": options}]

    def _overrides(self) -> list[Json]:
        return [
            {
                "matcher": {"id": "byName", "options": name},
                "properties": [{"id": "unit", "value": unit}],
            }
            for _, name, unit in self.columns
            if unit
        ]

    def _transformations(self) -> list[Json]:
        if self.kind != "table":
            return []
        names = {source: name for source, name, _ in self.columns if source != name}
        order = {source: at for at, (source, _, _) in enumerate(self.columns)}
        organize: Json = {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "indexByName": order,
                "renameByName": names,
            },
        }
        merged = [{"id": "merge", "options": {}}] if len(self.queries) > 1 else []
        return [*merged, organize]

    def _options(self) -> Json:
        if self.kind == "timeseries":
            return {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["last", "max"]},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        if self.kind == "table":
            return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}}
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        if self.kind == "gauge":
            return {"reduceOptions": reduce, "showThresholdMarkers": True}
        return {
            "reduceOptions": reduce,
            "colorMode": "value",
            "graphMode": "none" if self.by_name else "area",
            "textMode": "name" if self.by_name else "auto",
        }


def stat(title: str, expr: str, unit: str, help: str, **more: Any) -> Panel:
    """One number, the last one."""
    return Panel("stat", title, (Query(expr),), unit, help, 4, 4, **more)


def gauge(title: str, expr: str, help: str, **more: Any) -> Panel:
    """A share, 0 to 1."""
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"), (0.8, "orange"), (0.95, "red"))
    queries = (Query(expr),)
    return Panel("gauge", title, queries, "percentunit", help, 4, 4, steps=steps, maximum=1, **more)


def graph(title: str, unit: str, help: str, *queries: tuple[str, str], **more: Any) -> Panel:
    """Lines over time; `queries` are (PromQL, legend)."""
    made = tuple(Query(expr, legend) for expr, legend in queries)
    return Panel("timeseries", title, made, unit, help, **more)


@dataclass(frozen=True, slots=True)
class Row:
    """A heading with its panels."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: a datasource of a type, the values of a label, or words."""

    name: str
    label: str
    query: str
    datasource: bool = False
    many: bool = False
    words: bool = False

    def model(self) -> Json:
        """As Grafana has it."""
        if self.datasource:
            return {
                "name": self.name,
                "label": self.label,
                "type": "datasource",
                "query": self.query,
                "hide": 0,
                "refresh": 1,
            }
        if self.words:
            return {"name": self.name, "label": self.label, "type": "textbox", "query": ""}
        return {
            "name": self.name,
            "label": self.label,
            "type": "query",
            "datasource": PROMETHEUS,
            "query": {"query": self.query, "refId": self.name},
            "definition": self.query,
            "refresh": 2,  # when the time range changes, too: concentrators come and go
            "sort": 1,
            "multi": self.many,
            "includeAll": self.many,
            "hide": 0,
        }


SOURCE: Final = Variable("datasource", "Prometheus", "prometheus", datasource=True)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One file."""

    uid: str
    title: str
    help: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    links: tuple[str, ...] = field(default=("pptpcon",))  # tags of dashboards to go to

    def model(self) -> Json:
        """As Grafana has it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.help,
            "tags": ["pptpcon"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": [v.model() for v in self.variables]},
            "annotations": {"list": []},
            "links": [
                {
                    "type": "dashboards",
                    "title": "pptpcon",
                    "tags": list(self.links),
                    "asDropdown": True,
                    "includeVars": True,
                    "keepTime": True,
                }
            ],
            "panels": self._placed(),
        }

    def _placed(self) -> list[Json]:
        models: list[Json] = []
        y = 0
        for row in self.rows:
            models.append(
                {
                    "id": len(models) + 1,
                    "type": "row",
                    "title": row.title,
                    "collapsed": False,
                    "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                    "panels": [],
                }
            )
            y += 1
            x = highest = 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, highest = 0, y + highest, 0
                models.append(panel.model(len(models) + 1, x, y))
                x += panel.width
                highest = max(highest, panel.height)
            y += highest
        return models


def third(panels: Sequence[Panel]) -> tuple[Panel, ...]:
    """Three beside each other."""
    return tuple(replace(panel, width=8) for panel in panels)
