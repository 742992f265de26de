"""The OpenAPI document of the API, made from ops.console.models.

`python -m ops.console.openapi > ops/data/openapi.json` after a change; a test compares both.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ops.console import models
from ops.console.columns import COLUMNS
from ops.version import VERSION

COLUMN: Final = "|".join(COLUMNS)
COUNT: Final = {"type": "string", "pattern": "^[0-9]{1,6}$"}


class Parameter(NamedTuple):
    """One of a path or query."""

    name: str
    where: str
    schema: dict[str, Any]
    text: str


class Path(NamedTuple):
    """A GET: what it tells and to whom."""

    answer: type[BaseModel] | None
    text: str
    token: bool = False
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[int, ...] = ()


LIMIT: Final = Parameter("limit", "query", COUNT, "At most so many.")
PATHS: Final[dict[str, Path]] = {
    "/api/status": Path(models.Status, "Everything in sums."),
    "/api/stat": Path(models.Status, "The same as /api/status."),
    "/api/workers": Path(models.Workers, "A row for each worker."),
    "/api/ippool": Path(models.IpPool, "A row for each address pool."),
    "/api/radius": Path(models.Radius, "RADIUS servers and accounting not delivered."),
    "/api/hooks": Path(models.Hooks, "Programs of [hooks], and those that failed.", token=True),
    "/api/version": Path(models.Version, "Versions and process numbers."),
    "/api/history": Path(models.History, "The last half hour, for graphs."),
    "/api/failures": Path(models.Failures, "What went wrong of late, by cause, and what helps."),
    "/api/openapi.json": Path(None, "This document."),
    "/api/sessions": Path(
        models.Sessions,
        "Sessions, one a row.",
        token=True,
        parameters=(
            Parameter("columns", "query", {"type": "string"}, "Names with commas between."),
            Parameter(
                "match",
                "query",
                {"type": "string", "pattern": f"^({COLUMN}):", "maxLength": 512},
                "COLUMN:TEXT: those whose column contains TEXT.",
            ),
            Parameter(
                "search",
                "query",
                {"type": "string", "maxLength": 512},
                "Those whose sid, username, ip or csid contains it, in either case.",
            ),
            Parameter(
                "order",
                "query",
                {"type": "string", "pattern": f"^-?({COLUMN})$"},
                "By this column; with - before it the largest first.",
            ),
            LIMIT,
            Parameter("offset", "query", COUNT, "Without so many of the first."),
        ),
        errors=(400,),
    ),
    "/api/session/{name}": Path(
        models.FoundSessions,
        "All about the sessions with this sid, user name or inner address.",
        token=True,
        parameters=(Parameter("name", "path", {"type": "string"}, "Of whom."),),
        errors=(404,),
    ),
    "/api/ends": Path(
        models.Ends,
        "Calls that ended, newest first.",
        token=True,
        parameters=(
            Parameter(
                "name", "query", {"type": "string", "maxLength": 512}, "A sid, user or address."
            ),
            LIMIT,
        ),
        errors=(400, 502, 504),
    ),
    "/api/bans": Path(models.Bans, "Who is banned.", token=True, errors=(502, 504)),
}
ERRORS: Final = {
    400: "What is wrong with the question, in a line.",
    401: "No token, or a wrong one.",
    403: "Not to be had by TCP: no token is configured.",
    404: "There is none.",
    421: "Asked by a name that is not ours; see console.hosts.",
    429: "Too many requests; Retry-After tells when to ask again.",
    502: "The dispatcher is not there, or refused.",
    504: "The dispatcher did not answer in time.",
}


def document() -> dict[str, Any]:
    """The whole document."""
    kinds = [path.answer for path in PATHS.values() if path.answer is not None]
    _, made = models_json_schema(
        [(kind, "serialization") for kind in dict.fromkeys(kinds)],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pptpcon",
            "version": VERSION,
            "summary": "What a PPTP access concentrator tells of itself; read-only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:9723"}],
        "paths": {name: {"get": _get(path)} for name, path in PATHS.items()},
        "components": {
            "schemas": made["$defs"],
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A line of the file console.token_file names.",
                }
            },
        },
    }


def _get(path: Path) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if path.answer is not None:
        schema = {"$ref": f"#/components/schemas/{path.answer.__name__}"}
    errors = {*path.errors, 400, 421, 429} | ({401, 403} if path.token else set())
    return {
        "summary": path.text,
        **({"security": [{"token": []}]} if path.token else {"security": []}),
        **({"parameters": [_parameter(p) for p in path.parameters]} if path.parameters else {}),
        "responses": {
            "200": {"description": path.text, "content": {"application/json": {"schema": schema}}},
            **{
                str(code): {
                    "description": ERRORS[code],
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                }
                for code in sorted(errors)
            },
        },
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.where == "path",
        "description": parameter.text,
        "schema": parameter.schema,
    }


def text() -> str:
    """As the file holds it."""
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    print(text(), end="")
