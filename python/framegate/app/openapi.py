"""The routes of an app as an OpenAPI 3.1 document, and the page that shows it.

The document says what Rust checks: the schemas in it are the ones that parameters and bodies have
to satisfy. The page is one file without anything from elsewhere; its policy lets it load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import re
import typing
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from framegate.app.schemas import return_annotation, schema_of_return
from framegate.app.signatures import Argument, read_arguments
from framegate.app.streams import Events
from framegate.errors import RouteError

__all__ = ["About", "Described", "document", "page"]

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["in", "detail"],
                "properties": {
                    "in": {"enum": ["body", "path", "query", "header", "cookie", "form"]},
                    "name": {"type": "string"},
                    "pointer": {"type": "string"},
                    "offset": {"type": "integer", "minimum": 0},
                    "line": {"type": "integer", "minimum": 1},
                    "column": {"type": "integer", "minimum": 1},
                    "keyword": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
KINDS: Final[Mapping[str, dict[str, Any]]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "decimal": {"type": "number"},
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "uuid": {"type": "string", "format": "uuid"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "datetime": {"type": "string", "format": "date-time"},
}
IGNORED: Final = {"accept", "authorization", "content-type"}
"""Header parameters that the specification says are to be ignored."""
REASONS: Final = {
    400: "The body cannot be read",
    413: "The body is too large",
    415: "The body is of another type",
    422: "Something is wrong with the request",
}


class About(typing.TypedDict, total=False):
    """What is said of a route in the document.

    Attributes:
        tags: Words that it is found by.
        summary: One line; the first of the docstring if it is not said.
        description: More, in Markdown; the rest of the docstring.
        example: A body, as it would be sent.
        responses: More statuses and when they are answered.
        security: Names of security schemes, one of which is needed.
        deprecated: Whether it should not be used any more.
        hidden: Whether it is not in the document.
    """

    tags: Sequence[str]
    summary: str
    description: str
    example: Any
    responses: Mapping[int, str]
    security: Sequence[str]
    deprecated: bool
    hidden: bool


@dataclass(frozen=True, slots=True)
class Described:
    """The app itself, as the document has it.

    Attributes:
        title: Its name.
        version: The version of what it offers.
        description: What it is, in Markdown.
        security_schemes: As OpenAPI has them: `{"token": {"type": "http", "scheme": "bearer"}}`.
    """

    title: str = "framegate"
    version: str = "0"
    description: str = ""
    security_schemes: Mapping[str, Mapping[str, Any]] | None = None


def document(described: Described, routes: Iterable[Any]) -> dict[str, Any]:
    """Return the OpenAPI document of routes (`method`, `path`, `handler`, `about`).

    Raises:
        RouteError: A route needs a security scheme that there is not.
    """
    schemes = dict(described.security_schemes or {})
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    shown = [route for route in routes if not route.about.get("hidden")]
    names = Counter(_name(route) for route in shown)
    for route in shown:
        missing = set(route.about.get("security", ())) - schemes.keys()
        if missing:
            raise RouteError(
                f"{route.method} {route.path} needs the security scheme {missing.pop()!r}",
                fix="say what it is in App(described=Described(security_schemes={...}))",
            )
        path = re.sub(r"\{(\w+)(:\w+)?\}", r"{\1}", route.path)
        # Of paths that differ in the kinds of their parameters alone there can be one.
        operation = paths.setdefault(path, {})
        if route.method.lower() not in operation:
            name = _name(route)
            if names[name] > 1:
                words = re.findall(r"\w+", f"{route.method.lower()} {route.path}")
                name = "_".join([name, *words])
            operation[route.method.lower()] = _operation(route, name, schemas)
    components: dict[str, Any] = {
        "schemas": schemas.components,
        "responses": {
            "Problem": {
                "description": "A refusal (RFC 9457)",
                "content": {"application/problem+json": {"schema": schemas.problem}},
            }
        },
    }
    if schemes:
        components["securitySchemes"] = {name: dict(one) for name, one in schemes.items()}
    info = {"title": described.title, "version": described.version}
    if described.description:
        info["description"] = described.description
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _name(route: Any) -> str:
    return getattr(inspect.unwrap(route.handler), "__name__", "route")


def _operation(route: Any, name: str, schemas: _Schemas) -> dict[str, Any]:
    about: About = route.about
    text = inspect.getdoc(route.handler) or ""
    summary, _, description = text.partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": about.get("summary", " ".join(summary.split())),
        "description": about.get("description", description.strip()),
        "tags": list(about.get("tags", ())),
        "deprecated": about.get("deprecated", False),
        "security": [{one: []} for one in about.get("security", ())],
    }
    operation = {name: value for name, value in operation.items() if value}
    arguments = read_arguments(route.path, route.handler)
    parameters = [
        _parameter(one)
        for one in arguments
        if one.source in {"path", "query", "cookie"}
        or (one.source == "header" and one.wire.lower() not in IGNORED)
    ]
    if parameters:
        operation["parameters"] = parameters
    refusals = set()
    if any(one.source in {"path", "query", "header", "cookie"} for one in arguments):
        refusals.add(422)
    body = _body(arguments, about, schemas)
    if body:
        operation["requestBody"] = body
        refusals |= {400, 413, 415, 422}
    problem = {"$ref": "#/components/responses/Problem"}
    responses = _responses(route, schemas)
    for status in sorted(refusals):
        refusal = {"application/problem+json": {"schema": schemas.problem}}
        responses[str(status)] = {"description": REASONS[status], "content": refusal}
    for status, when in about.get("responses", {}).items():
        responses.setdefault(str(status), {})["description"] = when
        if status >= 400:
            refusal = {"application/problem+json": {"schema": schemas.problem}}
            responses[str(status)]["content"] = refusal
    responses["default"] = problem
    operation["responses"] = responses
    return operation


def _parameter(argument: Argument) -> dict[str, Any]:
    parameter: dict[str, Any] = {
        "name": argument.wire,
        "in": argument.source,
        "required": argument.is_required,
        "schema": _schema_of_text(argument),
    }
    if argument.is_list:
        parameter |= {"style": "form", "explode": True} if argument.source == "query" else {}
    return parameter


def _schema_of_text(argument: Argument) -> dict[str, Any]:
    """What a text has to be, and the bounds that Rust checks."""
    if argument.kind == "choice":
        schema: dict[str, Any] = {"enum": [text for text, _ in argument.choices]}
    else:
        schema = dict(KINDS[argument.kind])
    bounds = json.loads(argument.schema) if argument.schema else {}
    if argument.is_list:
        schema |= bounds.pop("items", {})
        schema = {"type": "array", "items": schema}
    schema |= bounds
    plain = argument.default
    if plain is not None and isinstance(plain, str | int | float | list):
        schema["default"] = plain
    return schema


def _body(arguments: list[Argument], about: About, schemas: _Schemas) -> dict[str, Any] | None:
    form = [one for one in arguments if one.source in {"form", "file"}]
    content: dict[str, Any]
    if form:
        properties: dict[str, Any] = {}
        for one in form:
            if one.source == "form":
                properties[one.wire] = _schema_of_text(one)
                continue
            file = {"type": "string", "format": "binary"}
            properties[one.wire] = {"type": "array", "items": file} if one.is_list else file
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        required = [one.wire for one in form if one.is_required]
        if required:
            schema["required"] = required
        content = {"multipart/form-data": {"schema": schema}}
        if all(one.source == "form" for one in form):
            content["application/x-www-form-urlencoded"] = {"schema": schema}
        return {"required": True, "content": content}
    for argument in arguments:
        if argument.source == "json":
            given = json.loads(argument.schema) if argument.schema else {}
            media: dict[str, Any] = {"schema": schemas.lifted(given)}
            if "example" in about:
                media["example"] = about["example"]
            content = {"application/json": media}
            return {"required": argument.is_required, "content": content}
        if argument.is_body:
            return {"required": argument.is_required, "content": {"application/octet-stream": {}}}
    return None


def _responses(route: Any, schemas: _Schemas) -> dict[str, Any]:
    _, plain = return_annotation(route.handler)
    if plain is type(None):
        return {"204": {"description": "Done"}}
    answer: dict[str, Any] = {"description": "The answer"}
    if plain is str:
        answer["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif plain in (bytes, bytearray):
        answer["content"] = {"application/octet-stream": {}}
    elif plain is Events:
        answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    elif (schema := schema_of_return(route.handler)) is not None:
        answer["content"] = {"application/json": {"schema": schemas.lifted(schema)}}
    return {"200": answer}


class _Schemas:
    """Schemas with names, from all routes in one place."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {"Problem": PROBLEM}
        self.problem = {"$ref": "#/components/schemas/Problem"}

    def lifted(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Move the definitions of a schema to the components, under names that nobody else has."""
        schema = dict(schema)
        definitions = schema.pop("$defs", {})
        names: dict[str, str] = {}
        # Two models of one name are two schemas; the same one is there once.
        suffix = ""
        while True:
            names = {name: re.sub(r"[^\w.-]", "_", name) + suffix for name in definitions}
            moved = {names[name]: _renamed(one, names) for name, one in definitions.items()}
            if all(self.components.get(name, one) == one for name, one in moved.items()):
                break
            suffix = f"_{int(suffix[1:] or 1) + 1}" if suffix else "_2"
        self.components |= moved
        lifted: dict[str, Any] = _renamed(schema, names)
        return lifted


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(one, names) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _renamed(one, names) for name, one in schema.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        found["$ref"] = f"#/components/schemas/{names[reference.removeprefix('#/$defs/')]}"
    shape = found.get("format")
    if isinstance(shape, str) and shape.startswith("python-"):
        # Ours takes more than the standard's: times without an offset.
        found["format"] = shape.removeprefix("python-")
    return found


def page(openapi: str) -> tuple[str, dict[str, str]]:
    """Return the page that shows the document at that path, and fields that go with it."""
    text = (Path(__file__).parent / "docs.html").read_text(encoding="utf-8")
    text = text.replace("@openapi@", openapi)
    policy = ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"]
    for tag in ("script", "style"):
        for inline in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S):
            digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
            policy.append(f"{tag}-src 'sha256-{digest}'")
    return text, {
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
    }
