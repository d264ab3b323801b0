"""JSON Schemas of bodies, and what makes the annotated object once the body satisfies its schema.

Rust checks the schema before any object is made. What no schema can say (a validator in Python, a
sum that has to be right) is said by the library whose type it is, and answered in the same form.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

from framegate.app.answers import Problem, Response
from framegate.app.streams import Streamed
from framegate.errors import RouteError

__all__ = ["read_body", "return_annotation", "schema_of_return"]

Convert = Callable[[Any], Any]


def read_body(annotation: Any, where: str) -> tuple[str | None, Convert | None]:
    """Return the schema of a body and what makes the annotated object of the plain one.

    Raises:
        RouteError: There is no schema of the annotation.
    """
    if annotation in (Any, object, dict, list) or annotation == dict[str, Any]:
        plain = {dict: "object", dict[str, Any]: "object", list: "array"}.get(annotation)
        return (json.dumps({"type": plain}) if plain else None), None
    if _has_pydantic(annotation):
        return _of_pydantic(annotation, where)
    try:
        import msgspec
    except ModuleNotFoundError:
        raise RouteError(
            f"the body of {where} is {annotation}, which msgspec reads, and it is not installed",
            fix="pip install framegate[routes]",
        ) from None
    try:
        schema = _of_msgspec(annotation)
    except TypeError as error:
        raise RouteError(f"there is no schema of the body of {where}: {error}") from error

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            detail, _, place = str(error).partition(" - at `")
            fault = ("body", _pointer_of_path(place.removesuffix("`")), detail)
            raise Problem(422, "one thing is wrong with the request", faults=[fault]) from error

    return json.dumps(schema), convert


def return_annotation(handler: Callable[..., Any]) -> tuple[Any, Any]:
    """Return the annotation of what a handler returns, as it is and without its extras."""
    annotation = typing.get_type_hints(handler, include_extras=True).get("return", Any)
    is_annotated = typing.get_origin(annotation) is typing.Annotated
    return annotation, typing.get_args(annotation)[0] if is_annotated else annotation


def schema_of_return(handler: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the schema of what a handler returns as JSON.

    `None` if it returns no JSON, or nothing is known of it.
    """
    annotation, plain = return_annotation(handler)
    if plain in (Any, None, type(None), str, bytes, bytearray, Response) or _is_streamed(plain):
        return None
    if annotation in (object, dict, list):
        return {dict: {"type": "object"}, list: {"type": "array"}}.get(annotation, {})
    try:
        if _has_pydantic(annotation):
            import pydantic

            schema: dict[str, Any] = pydantic.TypeAdapter(annotation).json_schema(
                mode="serialization"
            )
            return schema
        return _of_msgspec(annotation)
    except (ImportError, TypeError, ValueError):
        # It is answered all the same: the document says less.
        return None
    except Exception as error:
        if type(error).__module__.startswith("pydantic"):
            return None
        raise


def _is_streamed(annotation: Any) -> bool:
    base = typing.get_origin(annotation) or annotation
    if not isinstance(base, type) or issubclass(base, list | dict | str | tuple | set | frozenset):
        return False
    return issubclass(base, AsyncIterable | Iterator | Streamed)


# --- msgspec


def _of_msgspec(annotation: Any) -> dict[str, Any]:
    """msgspec's schema, with formats for what it takes and says nothing of: naive times."""
    import msgspec

    (schema,), components = msgspec.json.schema_components(
        (annotation,), ref_template="#/$defs/{name}"
    )
    _Formats(components).add(schema, msgspec.inspect.type_info(annotation))
    return {**schema, "$defs": components} if components else schema


class _Formats:
    """Walks a schema and the types that it was made of, side by side."""

    def __init__(self, components: dict[str, Any]) -> None:
        self._components = components
        self._seen: set[str] = set()

    def add(self, schema: dict[str, Any], info: Any) -> None:
        from msgspec import inspect as of

        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in self._seen:
                self._seen.add(name)
                self.add(self._components[name], info)
            return
        match info:
            case of.DateTimeType() if schema.get("type") == "string":
                # Also without an offset, which `date-time` demands.
                schema.setdefault("format", "python-date-time")
            case of.TimeType() if schema.get("type") == "string":
                schema.setdefault("format", "python-time")
            case of.UnionType(types=options):
                self._add_to_union(schema, options)
            case of.Metadata(type=inner):
                self.add(schema, inner)
            case of.ListType(item_type=item) | of.VarTupleType(item_type=item):
                self._add_within(schema, "items", item)
            case of.DictType(value_type=value):
                self._add_within(schema, "additionalProperties", value)
            case _:
                members = schema.get("properties", {})
                for field in getattr(info, "fields", ()):
                    if field.encode_name in members:
                        self.add(members[field.encode_name], field.type)

    def _add_within(self, schema: dict[str, Any], name: str, info: Any) -> None:
        inner = schema.get(name)
        if isinstance(inner, dict):
            self.add(inner, info)

    def _add_to_union(self, schema: dict[str, Any], options: Any) -> None:
        """`T | None`: which of several options a type became is not known otherwise."""
        from msgspec import inspect as of

        types = [option for option in options if not isinstance(option, of.NoneType)]
        schemas = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
        if len(types) == len(schemas) == 1:
            self.add(schemas[0], types[0])


def _pointer_of_path(path: str) -> str:
    """`$.a[0].b` of msgspec as a JSON pointer."""
    steps = re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path)
    return "".join("/" + _escaped(name or index) for name, index in steps)


def _escaped(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


# --- pydantic


def _has_pydantic(annotation: Any) -> bool:
    """Whether pydantic knows the type, or one inside it."""
    if hasattr(annotation, "__pydantic_validator__"):
        return True
    return any(_has_pydantic(inner) for inner in typing.get_args(annotation))


def _of_pydantic(annotation: Any, where: str) -> tuple[str, Convert]:
    import pydantic

    try:
        adapter = pydantic.TypeAdapter(annotation)
        schema = adapter.json_schema(mode="validation")
    except pydantic.errors.PydanticUserError as error:
        raise RouteError(f"there is no schema of the body of {where}: {error}") from error

    def convert(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            faults = [
                ("body", "".join(f"/{_escaped(str(step))}" for step in one["loc"]), one["msg"])
                for one in error.errors(include_url=False, include_input=False)
            ]
            count = "one thing is" if len(faults) == 1 else f"{len(faults)} things are"
            raise Problem(422, f"{count} wrong with the request", faults=faults) from error

    return json.dumps(_without_look_around(schema)), convert


def _without_look_around(schema: Any) -> Any:
    """Without the patterns that only a backtracking engine has: pydantic checks them itself."""
    if isinstance(schema, dict):
        return {
            name: _without_look_around(value)
            for name, value in schema.items()
            if not (
                name == "pattern" and isinstance(value, str) and re.search(r"\(\?<?[=!]", value)
            )
        }
    if isinstance(schema, list):
        return [_without_look_around(value) for value in schema]
    return schema
