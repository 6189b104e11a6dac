"""The client against the service's own OpenAPI: no operation without a method, no parameter or field that only one has."""

import inspect
import typing
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from app.client import Client
from app.client.operations import OPERATIONS, Operation
from app.main import create_app
from app.settings import Settings

NOT_FOR_PROGRAMS = {
    "GET /": "it lists the paths, for people",
    "GET /healthz": "for whoever runs the service",
    "POST /v1/files": "forms are for browsers: files.put does the same",
}
FAMILIES = {"label.NAME": "labels", "option.NAME": "options"}


def documented() -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": described
        for path, operations in OPENAPI["paths"].items()
        for method, described in operations.items()
    }


OPENAPI = create_app(Settings(BROKER_URL="")).openapi()
DOCUMENTED = documented()
METHODS = [(name, asked) for name in sorted(DOCUMENTED) for asked in OPERATIONS.get(name, [])]


def in_words(value: Any) -> str:
    """The same in every process, as several that share the tests need."""
    return value if isinstance(value, str) else str(value.method.__qualname__)


def in_python(name: str) -> str:
    return FAMILIES.get(name, name.lower().replace("-", "_"))


def parameters_of(name: str) -> dict[str, dict[str, Any]]:
    """Documented parameters by the name that the client gives them."""
    return {in_python(p["name"]): p for p in DOCUMENTED[name].get("parameters", [])}


def own_parameters(asked: Operation) -> set[str]:
    return set(inspect.signature(asked.method).parameters) - {"self"}


def body_schema(name: str) -> dict[str, Any] | None:
    content = DOCUMENTED[name].get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("schema")


def test_every_operation_has_a_method() -> None:
    assert set(DOCUMENTED) == set(OPERATIONS) | set(NOT_FOR_PROGRAMS)


@pytest.mark.parametrize("name", sorted({name for name, _ in METHODS}))
def test_every_documented_parameter_can_be_given(name: str) -> None:
    """By one of the operation's methods, or the method gives it itself and says so."""
    given = {parameter for asked in OPERATIONS[name] for parameter in own_parameters(asked)}
    given |= {in_python(parameter) for asked in OPERATIONS[name] for parameter in asked.sets}
    assert set(parameters_of(name)) <= given


@pytest.mark.parametrize(("name", "asked"), METHODS, ids=in_words)
def test_a_method_takes_nothing_that_is_not_documented(name: str, asked: Operation) -> None:
    own = own_parameters(asked) - set(asked.local)
    body = {"spec"} if body_schema(name) else set()
    assert own - body <= set(parameters_of(name))
    assert {in_python(parameter) for parameter in asked.sets} <= set(parameters_of(name))
    assert set(asked.local) <= own_parameters(asked)


@pytest.mark.parametrize(("name", "asked"), METHODS, ids=in_words)
def test_a_method_with_a_body_takes_all_of_it(name: str, asked: Operation) -> None:
    """As one spec, or field by field."""
    schema = body_schema(name)
    if schema is not None and "spec" not in own_parameters(asked):
        assert set(resolved(schema, OPENAPI)["properties"]) == set(asked.local)


@pytest.mark.parametrize(("name", "asked"), METHODS, ids=in_words)
def test_choices_are_the_documented_ones(name: str, asked: Operation) -> None:
    hints = typing.get_type_hints(asked.method)
    for parameter, described in parameters_of(name).items():
        known = choices(described["schema"])
        hint = hints.get(parameter)
        if get_origin(hint) is typing.Literal and known:
            assert set(get_args(hint)) <= known, parameter


def choices(schema: dict[str, Any]) -> set[Any]:
    parts = schema.get("anyOf", [schema])
    return {value for part in parts for value in part.get("enum", [])}


@pytest.mark.parametrize(("name", "asked"), METHODS, ids=in_words)
def test_a_model_has_exactly_the_documented_fields(name: str, asked: Operation) -> None:
    """The model that a method returns is one of the operation's answers, down to the last nested field."""
    hint = typing.get_type_hints(asked.method)["return"]
    answers = [
        content["application/json"]["schema"]
        for status, answer in DOCUMENTED[name]["responses"].items()
        if status.startswith("2") and "application/json" in (content := answer.get("content", {}))
    ]
    if not (isinstance(hint, type) and issubclass(hint, BaseModel)):
        return
    own = hint.model_json_schema(mode="serialization")
    assert essence(own, own) in [essence(answer, OPENAPI) for answer in answers]


def resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def essence(schema: Any, document: dict[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """Fields and types, without words, defaults, bounds and enumerations: a newer service may know more values."""
    if isinstance(schema, list):
        return [essence(part, document, seen) for part in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    if reference in seen:
        return reference
    schema = resolved(schema, document)
    seen = (*seen, reference) if reference else seen
    kept = {}
    for key in ("type", "required", "anyOf", "items", "properties"):
        if key == "properties" and key in schema:
            kept[key] = {field: essence(part, document, seen) for field, part in schema[key].items()}
        elif key == "required" and key in schema:
            kept[key] = sorted(schema[key])
        elif key in schema:
            kept[key] = essence(schema[key], document, seen)
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = essence(schema["additionalProperties"], document, seen)
    return kept


def test_every_kind_of_method_is_on_the_client() -> None:
    """A class of methods that no attribute of the client has could not be called."""
    with Client("http://127.0.0.1:1") as client:
        reachable = {type(value).__qualname__ for value in vars(client).values()}
    for _, asked in METHODS:
        assert asked.method.__qualname__.split(".")[0] in reachable
