"""The whole corpus over HTTP: each file is uploaded to a running service and registered as a teacher.

python -m tests.fuzz http-corpus [--only SUBSTRING] [--parallel 4]
"""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tests.corpus.case import Case
from tests.corpus.checkpoints import cases
from tests.service import Service, wait_for
from tests.worker import tiny


def send(service: Service, case: Case, name: str) -> dict[str, Any]:
    """Upload the case under this name and register it: the problem with which it ends, and `seconds` from the POST on.

    A registration that outlasts its request (202) is followed to its end.
    """
    put = service.http.put(f"/v1/files/{name}", content=case.make())
    assert put.status_code in (200, 201), put.text
    look = {"architecture": tiny.TEACHER, "preprocessing": tiny.PREPROCESSING}
    began = time.monotonic()
    answer = service.http.post("/v1/teachers", json={"file": name, **look, **case.request})
    found: dict[str, Any] = answer.json()
    if answer.status_code == 202:
        path = answer.headers["Location"]
        wait_for(lambda: service.get(path)["state"] != "inspecting", 300)
        found = service.get(path)["error"] or {"status": 200, "code": "READY"}
    return {"status": answer.status_code, "code": "READY", **found, "seconds": time.monotonic() - began}


def fault_of(service: Service, case: Case, name: str) -> tuple[str | None, float]:
    """What is wrong with the answer, None when it is the case's; and how long it took."""
    answer = send(service, case, name)
    rule = answer["errors"][0]["code"] if answer.get("errors") else None
    found, wanted = (answer["status"], answer["code"]), (case.status, case.code)
    if found == wanted and case.rule in (None, rule):
        return None, answer["seconds"]
    return f"{case.name}: {(*found, rule)}, not {(*wanted, case.rule)}", answer["seconds"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--parallel", type=int, default=2)
    given = parser.parse_args()
    corpus = [case for case in cases() if given.only in case.name]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.parallel) as threads:
        service = Service(Path(folder) / "data", {})
        worker = service.pid("worker")
        ask = partial(fault_of, service)
        answers = list(threads.map(ask, corpus, [f"case-{number}.pt" for number in range(len(corpus))]))
        same = service.pid("worker") == worker
        ended = service.stop()
    faults = [fault for fault, _ in answers if fault]
    seconds = sorted(seconds for _, seconds in answers)
    print(*faults, sep="\n")
    p50, p95 = (seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.95))
    print(
        f"{len(corpus)} files over HTTP: {len(faults)} with another answer; "
        f"from POST to verdict p50 {p50:.2f} s, p95 {p95:.2f} s, most {seconds[-1]:.2f} s; "
        f"the worker is {'the same process' if same else 'ANOTHER PROCESS'}; the service ended with {ended}"
    )
    return 0 if not faults and same and ended == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
