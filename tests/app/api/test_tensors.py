"""Anybody may compare what was read of an upload with what they saved."""

import base64
import hashlib

from tests.app.conftest import Service, teacher_report

TENSORS = b"canonical"


def known(service: Service, **found: str) -> str:
    report = teacher_report(["cat", "dog"])
    service.worker.answers["teacher"] = lambda _: {"artifact_sha256": "a" * 64, "report": report} | found
    return service.teacher()


def test_the_tensors_are_served_under_their_digest(sqlite_service: Service) -> None:
    ident = known(sqlite_service, tensors_sha256=sqlite_service.worker.put(TENSORS))
    teacher = sqlite_service.client.get(f"/v1/teachers/{ident}").json()
    assert teacher["tensors_sha256"] == hashlib.sha256(TENSORS).hexdigest()
    answer = sqlite_service.client.get(teacher["links"]["tensors"])
    assert (answer.status_code, answer.content) == (200, TENSORS)
    digest = base64.b64encode(hashlib.sha256(TENSORS).digest()).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["content-disposition"] == f'attachment; filename="{ident}.safetensors"'


def test_a_teacher_without_tensors_says_so(sqlite_service: Service) -> None:
    ident = known(sqlite_service)
    answer = sqlite_service.client.get(f"/v1/teachers/{ident}/tensors")
    assert (answer.status_code, answer.json()["code"]) == (409, "NO_TENSORS")


def test_an_unknown_teacher_has_none(sqlite_service: Service) -> None:
    answer = sqlite_service.client.get("/v1/teachers/tch_00000000000000000000000000/tensors")
    assert answer.status_code == 404
