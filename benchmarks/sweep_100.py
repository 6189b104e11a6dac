"""A sweep of 100 jobs on two workers: what is trained once, whether its table is right, whether a cancel loses anything.

    python -m benchmarks.sweep_100 [--database sqlite|postgresql|URL] [--workers 2] [--rates 5] [--bits 5] [--seeds 4]

Every job trains a tiny network for 8 epochs, prunes it, and stores it in fewer bits: 5 rates x 5 numbers of bits x 4 seeds.
Trained are 4 networks, pruned 20. Then the same sweep once more, paused and resumed at a tenth, cancelled and tried again
at two fifths: its answers must be those of the first to the byte. The table of the first is compared with the jobs' own
results, one by one.
"""

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.running import STUDENT, Running, ingredients, machine, servers, until

RATES = [0.9, 0.8, 0.7, 0.6, 0.5]
BITS = [8, 7, 6, 5, 4]
EPOCHS = 8
_PATIENCE_SECONDS = 3600
_COMPARED = ("size_bytes", "parameters", "macs", "test_accuracy", "val_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", default="sqlite")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rates", type=int, default=len(RATES))
    parser.add_argument("--bits", type=int, default=len(BITS))
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder, servers(given.database, None) as (environment, _):
        service = Running(Path(folder), {**environment, "FEWBYTES_NUM_THREADS": "1"}, workers=given.workers)
        try:
            _run(service, _spec(service, given))
        finally:
            service.stop()


def _spec(service: Running, given: argparse.Namespace) -> dict[str, Any]:
    steps = [
        {"method": "train", "student": STUDENT, "epochs": EPOCHS},
        {"method": "prune", "keep_rate": 0.5, "training": {"epochs": 2}},
        {"method": "quantize", "bits": 8},
    ]
    return {
        "name": "hundred",
        "job": ingredients(service) | {"steps": steps},
        "axes": [
            {"name": "rate", "field": "/steps/1/keep_rate", "values": RATES[: given.rates]},
            {"field": "/steps/2/bits", "values": BITS[: given.bits]},
        ],
        "seeds": given.seeds,
        "max_concurrent": 8,
    }


def _run(service: Running, spec: dict[str, Any]) -> None:
    first = _post(service, spec)
    ended = _until(service, first, lambda sweep: sweep["finished_at"] is not None)
    _tell(service, first, ended)
    answers = _answers(service, first)
    _compare_table(service, first, answers)
    second = _post(service, spec)
    total = sum(ended["counts"].values())
    _hold(service, second, total // 10)
    _cancel_and_retry(service, second, 2 * total // 5)
    again = _answers(service, second)
    same = sum(answers[key]["sha256"] == again[key]["sha256"] for key in answers)
    print(f"answers of the interrupted sweep that are the first one's to the byte: {same} of {len(answers)}")
    assert same == len(answers) == len(again) == total


def _post(service: Running, spec: dict[str, Any]) -> str:
    plan = service.post("/v1/sweeps?validate_only=true", spec)
    began = time.monotonic()
    sweep = service.post("/v1/sweeps", spec)
    seconds = time.monotonic() - began
    print(
        f"posted {len(plan['children'])} jobs and {len(plan['stages'])} stage jobs in {seconds:.2f} s: {plan['shared']}"
    )
    ident: str = sweep["id"]
    return ident


def _until(service: Running, ident: str, done: Any) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        sweep: dict[str, Any] = service.get(f"/v1/sweeps/{ident}")
        return sweep if done(sweep) else None

    found: dict[str, Any] = until(look, _PATIENCE_SECONDS, pause=0.2)
    return found


def _jobs(service: Running, ident: str) -> list[dict[str, Any]]:
    """Whole, with results."""
    found, path = [], f"/v1/jobs?sweep={ident}&page_size=200"
    token: str | None = ""
    while token is not None:
        page = service.get(path + (f"&page_token={token}" if token else ""))
        found += [service.get(job["links"]["self"]) for job in page["items"]]
        token = page["next_page_token"]
    return found


def _tell(service: Running, ident: str, sweep: dict[str, Any]) -> None:
    """Steps named by the jobs, and those that somebody did."""
    jobs = _jobs(service, ident)
    named = sum(len(job["spec"]["steps"]) for job in jobs if job["point"] is not None)
    done = [
        stage["method"]
        for job in jobs
        for stage in job["result"]["stages"]
        if stage["step"] > 0 and not stage.get("shared_from")
    ]
    counted = {method: done.count(method) for method in dict.fromkeys(done)}
    attempts = [attempt for job in jobs for attempt in job["attempts"]]
    wall = _seconds(sweep["finished_at"]) - _seconds(sweep["created_at"])
    busy = sum(_seconds(attempt["ended_at"]) - _seconds(attempt["started_at"]) for attempt in attempts)
    print(f"{sweep['state']}: {sweep['counts']}; {sum(job['point'] is None for job in jobs)} stage jobs")
    print(
        f"steps named by the jobs: {named}; done: {len(done)} {counted}; wall {wall:.0f} s, workers busy {busy:.0f} s"
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _answers(service: Running, ident: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By rate, bits and seed: what each job itself says of its answer."""
    found = {}
    for job in _jobs(service, ident):
        if job["point"] is None:
            continue
        steps, last = job["spec"]["steps"], job["result"]["stages"][-1]
        artifacts = service.get(f"{job['links']['artifacts']}")["items"]
        [final] = [artifact for artifact in artifacts if artifact["kind"] == "final"]
        key = (steps[1]["keep_rate"], steps[2]["bits"], job["spec"]["seed"])
        found[key] = {
            "sha256": final["sha256"],
            "size_bytes": final["size_bytes"],
            "parameters": last["parameters"],
            "macs": last["macs"],
            "test_accuracy": last["splits"]["test"]["accuracy"],
            "val_accuracy": last["splits"]["val"]["accuracy"],
        }
    return found


def _compare_table(service: Running, ident: str, answers: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    rows = service.get(f"/v1/sweeps/{ident}/table?rows=answers")["rows"]
    assert len(rows) == len(answers), (len(rows), len(answers))
    for row in rows:
        own = answers[row["rate"], row["bits"], row["seed"]]
        wrong = {name: (row[name], own[name]) for name in _COMPARED if row[name] != own[name]}
        assert not wrong, (row["job_id"], wrong)
    print(f"table: {len(rows)} rows, {len(rows) * len(_COMPARED)} numbers as the jobs have them")


def _hold(service: Running, ident: str, number: int) -> None:
    _until(service, ident, lambda sweep: sweep["counts"]["succeeded"] >= number)
    service.post(f"/v1/sweeps/{ident}/pause")
    began = time.monotonic()
    held = _until(service, ident, lambda sweep: sweep["state"] == "paused")
    print(f"paused with {held['counts']['succeeded']} done, after {time.monotonic() - began:.1f} s; resumed")
    service.post(f"/v1/sweeps/{ident}/resume")


def _cancel_and_retry(service: Running, ident: str, number: int) -> None:
    _until(service, ident, lambda sweep: sweep["counts"]["succeeded"] >= number)
    service.post(f"/v1/sweeps/{ident}/cancel")
    began = time.monotonic()
    over = _until(service, ident, lambda sweep: sweep["finished_at"] is not None)
    done = {job["id"]: job["finished_at"] for job in _jobs(service, ident) if job["state"] == "succeeded"}
    print(f"cancelled after {time.monotonic() - began:.1f} s: {over['counts']}")
    service.post(f"/v1/sweeps/{ident}/retry")
    ended = _until(service, ident, lambda sweep: sweep["finished_at"] is not None)
    after = {job["id"]: job["finished_at"] for job in _jobs(service, ident)}
    assert all(after[job_id] == finished for job_id, finished in done.items()), "what was done was done again"
    print(
        f"tried again: {ended['state']} {ended['counts']}; the {len(done)} that were done stayed as they were"
    )


if __name__ == "__main__":
    main()
