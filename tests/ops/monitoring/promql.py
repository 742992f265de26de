"""What a PromQL expression names: metrics, their labels, and whether we have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as p
import yaml

from ops.console.series import SERIES

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "ops/data/prometheus"
TARGET = {"job", "instance"}  # that Prometheus adds
VARIABLES = {
    "$__rate_interval": "5m",
    "$__interval": "1m",
    "$__range": "6h",
    "$instance": "one:9723",
}


def groups(name: str) -> list[dict[str, Any]]:
    """The rules of a file of ops/data/prometheus."""
    found = yaml.safe_load((RULES / name).read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def filled(expr: str, **values: str) -> str:
    """With values in place of Grafana's variables."""
    for name, value in {**VARIABLES, **{f"${k}": v for k, v in values.items()}}.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


def known() -> dict[str, set[str]]:
    """Every name that a query may use, with its labels."""
    names: dict[str, set[str]] = {"up": set(TARGET)}
    for s in SERIES:
        labels = set(s.labels) | TARGET
        if s.kind == "histogram":
            names |= {f"{s.name}_sum": labels, f"{s.name}_count": labels}
            names[f"{s.name}_bucket"] = labels | {"le"}
        else:
            names[s.name] = labels
    for rule in groups("pptpcon-recording.yml"):
        level = rule["record"].partition(":")[0]
        names[rule["record"]] = set(level.split("_")) | {"job"}
    return names


NAMES = known()
Expr = Any  # the parser's classes have no common one that knows their fields


def faults(expr: str) -> list[str]:
    """What an expression says that is not so; SyntaxError or ValueError if it is none."""
    return list(_faults(p.parse(expr)))


def _faults(e: Expr) -> Iterator[str]:
    labels = _labels(e)
    match e:
        case p.VectorSelector():
            if e.name not in NAMES:
                yield f"no metric {e.name}"
            else:
                for m in e.matchers.matchers:
                    if m.name not in NAMES[e.name]:
                        yield f"{e.name} has no label {m.name}"
        case p.AggregateExpr():
            if e.modifier is not None:
                for label in set(e.modifier.labels) - _labels(e.expr):
                    yield f"no label {label} in {e.expr}"
        case p.BinaryExpr():
            if e.modifier is not None and e.modifier.matching is not None:
                for label in set(e.modifier.matching.labels) - labels:
                    yield f"no label {label} in {e}"
    for inner in _inner(e):
        yield from _faults(inner)


def _inner(e: Expr) -> list[Expr]:
    match e:
        case p.MatrixSelector():
            return [e.vector_selector]
        case p.BinaryExpr():
            return [e.lhs, e.rhs]
        case p.Call():
            return list(e.args)
        case p.AggregateExpr() | p.ParenExpr() | p.UnaryExpr() | p.SubqueryExpr():
            return [e.expr]
    return []


def _labels(e: Expr) -> set[str]:
    """Labels that an expression's rows may have."""
    if isinstance(e, p.VectorSelector):
        return NAMES.get(e.name or "", set())
    if isinstance(e, p.AggregateExpr):
        inner = _labels(e.expr)
        if str(e.op) in ("topk", "bottomk"):
            return inner
        if e.modifier is None:
            return set()
        own = set(e.modifier.labels)
        return own if e.modifier.type == p.AggModifierType.By else inner - own
    found: set[str] = set()
    for inner_expr in _inner(e):
        found |= _labels(inner_expr)
    if isinstance(e, p.Call) and e.func.name == "histogram_quantile":
        found -= {"le"}
    return found


def templated(text: str) -> set[str]:
    """Labels that an annotation or legend names."""
    return set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{(\w+)\}\}", text))


def row_labels(expr: str) -> set[str]:
    """Labels of what an expression answers."""
    return _labels(p.parse(expr))
