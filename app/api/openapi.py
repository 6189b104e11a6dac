"""The OpenAPI: what FastAPI makes of the routers, and what it cannot know.

Problems of every operation, keys, dictionaries whose names fit a pattern, and where the ids of an answer lead.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.problems import ProblemBody

# (method, path, status of the answer) -> (parameter that it supplies, where in the answer).
_SUPPLIES = {
    ("get", "/v1/jobs", "200"): ("job_id", "$response.body#/items/0/id"),
    ("post", "/v1/jobs", "202"): ("job_id", "$response.body#/id"),
    ("get", "/v1/jobs/{job_id}/artifacts", "200"): ("artifact_id", "$response.body#/items/0/id"),
    ("get", "/v1/sweeps", "200"): ("sweep_id", "$response.body#/items/0/id"),
    ("post", "/v1/sweeps", "202"): ("sweep_id", "$response.body#/id"),
    ("post", "/v1/teachers", "201"): ("teacher_id", "$response.body#/id"),
    ("post", "/v1/datasets", "201"): ("dataset_id", "$response.body#/id"),
    ("post", "/v1/uploads", "201"): ("upload_id", "$response.body#/id"),
}


def install(app: FastAPI) -> None:
    """Let the app answer /openapi.json with it."""
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        _describe_problems(schema, schemas)
        _forbid_other_names(schemas)
        _link(schema["paths"])
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        # Without any key at all the service is this machine's, and needs none.
        schema["security"] = [{"key": []}, {}]
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_problems(schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for _, _, operation in _operations(schema["paths"]):
        responses = operation["responses"]
        responses.pop("422", None)
        responses["4XX"] = {"description": "The request cannot be met.", "content": content}
        responses["5XX"] = {"description": "The service cannot answer now.", "content": content}


def _forbid_other_names(schema: Any) -> None:
    """Say what is true of every dictionary whose names must fit a pattern, and what pydantic leaves out."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _forbid_other_names(part)
    elif isinstance(schema, list):
        for part in schema:
            _forbid_other_names(part)


def _link(paths: dict[str, Any]) -> None:
    for (method, path, status), (parameter, place) in _SUPPLIES.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {parameter: place},
            }
            for _, other, operation in _operations(paths)
            if f"{{{parameter}}}" in other
        }
        paths[path][method]["responses"][status].setdefault("links", {}).update(links)


def _operations(paths: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            yield method, path, operation
