"""What every answer has in common: request ids, problems, HEAD, strict parameters, OpenAPI."""

import json
import subprocess
import sys

import pytest

from app import db, resources
from tests.app.conftest import Service


def test_every_answer_has_a_request_id_and_a_sane_one_is_kept(sqlite_service: Service) -> None:
    """A client's own id is kept in headers and problems; one that could forge log lines is replaced."""
    client = sqlite_service.client
    assert client.get("/healthz").headers["x-request-id"].startswith("req_")
    answer = client.get("/v1/jobs/job_none", headers={"X-Request-Id": "mine-42"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine-42"
    assert client.get("/", headers={"X-Request-Id": "a b"}).headers["x-request-id"].startswith("req_")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("PATCH", "/v1/jobs", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/jobs?sate=queued", 400, "UNKNOWN_PARAMETER"),
        ("GET", "/v1/jobs?state=queued&state=failed", 422, "INVALID_PARAMETER"),
        ("GET", "/v1/jobs?state=sleeping", 422, "INVALID_PARAMETER"),
        ("GET", "/v1/jobs?page_token=xx", 422, "INVALID_PARAMETER"),
        ("GET", "/v1/teachers/tch_none", 404, "NOT_FOUND"),
    ],
)
def test_every_error_is_a_problem(
    sqlite_service: Service, method: str, path: str, status: int, code: str
) -> None:
    """Also those that the framework raises, not our routers."""
    answer = sqlite_service.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["instance"] == path.split("?")[0]


def test_405_names_all_methods_of_the_path(sqlite_service: Service) -> None:
    """The framework's own answer knows only the first route's."""
    answer = sqlite_service.client.request("PATCH", "/v1/uploads/upl_1")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"


def test_head_answers_as_get_without_a_body(sqlite_service: Service) -> None:
    """Status and headers are GET's, the length included."""
    got = sqlite_service.client.get("/v1/steps")
    headed = sqlite_service.client.head("/v1/steps")
    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-length"] == got.headers["content-length"]


def test_a_validation_error_points_into_the_body_without_repeating_it(sqlite_service: Service) -> None:
    """Pointers are JSON pointers: without the names of union branches that pydantic inserts."""
    secret = "do-not-echo-me"
    steps = [{"method": "distill", "student": "x", "alpha": 7, "alhpa": secret}, {"method": secret}]
    body = {"teachers": ["tch_a"], "dataset": secret, "steps": steps}
    answer = sqlite_service.client.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert secret not in answer.text
    errors = {error["pointer"]: error for error in answer.json()["errors"]}
    assert set(errors) == {"/dataset", "/steps/0/alpha", "/steps/0/alhpa", "/steps/1/method"}
    assert errors["/steps/0/alhpa"]["hint"] == "Did you mean alpha?"
    assert "Known: distill, factorise, " in errors["/steps/1/method"]["detail"]


def test_a_rule_of_a_whole_step_points_at_the_step(sqlite_service: Service) -> None:
    """Errors of model validators come without pydantic's prefix."""
    step = {"method": "quantize", "scheme": "fp16", "bits": 8}
    body = {"teachers": ["tch_a"], "dataset": "dst_a", "steps": [step]}
    (error,) = sqlite_service.client.post("/v1/jobs", json=body).json()["errors"]
    assert error["pointer"] == "/steps/0"
    assert error["detail"].startswith("scheme 'fp16' stores 16 bits")


def test_openapi_describes_problems_and_raw_bodies(sqlite_service: Service) -> None:
    """Every operation documents the problem, and no operation documents the framework's own error body."""
    schema = sqlite_service.client.get("/openapi.json").json()
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert len(operations) > 30
    for operation in operations:
        content = operation["responses"]["4XX"]["content"]["application/problem+json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in json.dumps(schema)
    assert "application/octet-stream" in schema["paths"]["/v1/files/{name}"]["put"]["requestBody"]["content"]
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_a_fault_of_ours_is_a_problem_too(sqlite_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 500 says nothing of our insides, but names the request."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(resources, "newest", broken)
    answer = sqlite_service.client.get("/v1/files", headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "mine"
    assert "inside" not in answer.text


def test_the_root_health_and_readiness(service: Service) -> None:
    """Readiness needs the database; a broker that is not there is only reported."""
    assert service.client.get("/").json()["routes"]["jobs"] == "/v1/jobs"
    assert service.client.get("/healthz").json() == {"status": "ok"}
    ready = service.client.get("/readyz").json()
    assert ready == {"status": "ready", "database": "ok", "broker": "not configured"}


def test_a_dead_database_is_503(sqlite_service: Service) -> None:
    """Not 500: the same request works later."""
    sqlite_service.worker.stop()
    db.configure("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    answer = sqlite_service.client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "2"
    assert sqlite_service.client.get("/healthz").status_code == 200


def test_the_api_process_holds_no_torch() -> None:
    """Importing the whole front door loads neither torch nor the rooms that need it."""
    code = (
        "import sys; from app.main import create_app; create_app();"
        "print([name for name in ('torch', 'worker', 'models') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
