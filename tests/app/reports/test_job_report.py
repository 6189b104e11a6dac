"""The report of a job: what is on the page, read with a parser; and as Markdown."""

import base64
import hashlib
import itertools
import json
import re
import subprocess
import time

import pytest

from app import jobs
from app.db import transaction
from app.errors import Problem
from tests.app.conftest import Service
from tests.app.reports import examples
from tests.app.reports.conftest import STEPS, ended
from tests.app.reports.pages import Page

HOSTILE = '<script>alert("1")</script>\'"><img src=x onerror=alert(2)> | `x` \u202e [a](javascript:b)'


def page_of(service: Service, job_id: str) -> Page:
    answer = service.client.get(f"/v1/jobs/{job_id}/report")
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def test_the_stage_table_has_every_number(sqlite_service: Service, job_id: str) -> None:
    table = page_of(sqlite_service, job_id).table("The teacher and every step")
    stages = examples.result()["stages"]
    assert [row[0] for row in table.rows] == ["teacher", "1 distill", "2 quantize"]
    for split in ("test", "val"):
        accuracies = [percent(stage["splits"][split]["accuracy"]) for stage in stages]
        assert table.column(f"{split} accuracy") == accuracies
    assert table.column("size") == ["13,770,553", "426,789", "113,250"]
    assert table.column("parameters") == ["3,442,638", "106,697", "28,312"]
    # 13,770,553 / 426,789 and / 113,250, by hand.
    assert table.column("compression ratio") == ["–", "32.3 ×", "122 ×"]
    assert table.column("lost to the teacher") == ["–", "−4.0", "−4.0"]
    assert table.column("95 % interval")[1] == "−10.0 to +2.1"
    assert table.column("agreement") == ["–", "75.0", "75.0"]
    assert table.column("latency") == ["4.25"] * 3
    assert table.column("took") == ["–", "5 min 19 s", "5 min 19 s"]
    assert table.rows[1][-2] == "2.50 T"


def test_the_summary_says_what_matters(sqlite_service: Service, job_id: str) -> None:
    text = page_of(sqlite_service, job_id).text
    assert "The answer has 113,250 bytes, 122 times fewer than the teacher." in text
    assert "−4.0 points (95 % interval −10.0 to +2.1, 100 images)" in text


def test_recall_shows_the_counts(sqlite_service: Service, job_id: str) -> None:
    """Teacher and answer, class by class, as the confusion matrices have it."""
    table = page_of(sqlite_service, job_id).table("Recall on test")
    stages = examples.result()["stages"]
    teacher, answer = (stages[k]["confusion"]["test"] for k in (0, 2))
    assert [row[0] for row in table.rows] == examples.CLASSES
    assert table.column("teacher right") == [str(n) for n in teacher["num_correct"]]
    assert table.column("answer right") == [str(n) for n in answer["num_correct"]]
    changes = [(a - t) / 20 for a, t in zip(answer["num_correct"], teacher["num_correct"], strict=True)]
    shown = [float(cell.replace("−", "-")) for cell in table.column("change")]
    assert shown == pytest.approx([100 * change for change in changes], abs=0.05)


def test_shares_of_layers_add_up(sqlite_service: Service, job_id: str) -> None:
    table = page_of(sqlite_service, job_id).table("Layers of the network after step 2")
    shares = [float(row[4]) for row in table.rows]
    assert shares[:-1] == [10.0, 20.0, 30.0, 40.0]
    assert table.rows[-1][:1] + table.rows[-1][3:] == [
        "sum",
        "250",
        "100.0",
        "1,000",
        "100.0",
        "10,000",
        "100.0",
    ]


def test_what_each_layer_bears_is_told(sqlite_service: Service, job_id: str) -> None:
    table = page_of(sqlite_service, job_id).table("What each layer bears")
    assert table.rows[1] == ["block1.conv", "200", "74.0", "−1.0", "0.00200", "73.0", "−2.0", "0.0100"]
    assert table.rows[3][5:] == ["–", "–", "–"]


def test_prune_iterations_have_before_and_after(sqlite_service: Service) -> None:
    result = examples.result()
    result["stages"][1] |= {"method": "prune", "details": examples.pruning()}
    table = page_of(sqlite_service, ended(sqlite_service, result)).table("Step 1: iterations of pruning")
    assert table.column("parameters") == ["1,000", "900", "800", "700"]
    assert table.column("val accuracy before") == ["–", "70.0", "60.0", "50.0"]
    assert table.column("val accuracy after") == ["80.0", "78.0", "76.0", "74.0"]


def test_a_page_needs_nothing_and_runs_nothing(sqlite_service: Service, job_id: str) -> None:
    """One file: no script, no style but the one whose digest the policy names, no address that is fetched."""
    answer = sqlite_service.client.get(f"/v1/jobs/{job_id}/report")
    page = Page(answer.text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "form", "img", "base"}
    assert [link["href"] for link in page.tags("link")] == ["data:,"]
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], tag
        for name, value in attributes.items():
            if name.endswith("href"):
                assert value.startswith(("#", "/v1/jobs/", "data:")), value
    assert "url(" not in page.style
    assert "@import" not in page.style
    policy = answer.headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    (within,) = (meta["content"] for meta in page.tags("meta") if meta.get("http-equiv"))
    assert policy.startswith(within)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_picture_has_words_and_numbers(sqlite_service: Service, job_id: str) -> None:
    page = page_of(sqlite_service, job_id)
    assert len(page.tags("svg")) == len(page.alts) == len(page.tags("figure")) == 7
    assert all(re.search(r"\d", alt) for alt in page.alts)
    captions = [table.caption for table in page.tables if table.caption.startswith("The numbers of")]
    assert len(captions) == 7
    sizes = page.table("The numbers of “Accuracy and size")
    assert [row[1] for row in sizes.rows] == ["13,770,553", "426,789", "113,250"]


def test_headings_go_down_one_at_a_time(sqlite_service: Service, job_id: str) -> None:
    page = page_of(sqlite_service, job_id)
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    anchors = {section["id"] for section in page.tags("section")}
    assert {link["href"][1:] for link in page.tags("a") if link["href"].startswith("#")} == anchors


def hostile_job(service: Service) -> str:
    service.worker.know(names=["cat", "dog"])
    result = examples.result(warnings=[HOSTILE], sensitivity=examples.sensitivity())
    result["stages"][0]["class_names"] = [HOSTILE, "x" * 10_000, "soup"]
    result["stages"][2]["layers"][0]["name"] = HOSTILE
    result["sensitivity"]["layers"][0]["layer"] = HOSTILE
    return ended(service, result, name=HOSTILE[:200], labels={"a": HOSTILE[:200]})


def test_what_users_typed_is_text(sqlite_service: Service) -> None:
    """In a name, a label, a class, a layer, a warning: shown as it was typed, and nothing else."""
    job_id = hostile_job(sqlite_service)
    source = sqlite_service.client.get(f"/v1/jobs/{job_id}/report").text
    page = Page(source)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img"}
    assert page.text.count('<script>alert("1")</script>') >= 4
    assert "\u202e" not in source
    assert "x" * 200 not in source
    assert all("onerror" not in attributes for _, attributes in page.elements)


def test_markdown_stays_markdown(sqlite_service: Service) -> None:
    """No cell breaks its table, no HTML comes through but our own folds, no link is a user's."""
    job_id = hostile_job(sqlite_service)
    answer = sqlite_service.client.get(f"/v1/jobs/{job_id}/report?format=md")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    lines = answer.text.split("\n")
    outside, fence = [], None
    for line in lines:
        if line.startswith("```"):
            fence = None if fence else line
        elif fence is None:
            outside.append(line)
    text = "\n".join(outside)
    assert "<script" not in text
    assert "<img" not in text
    assert set(re.findall(r"</?(\w+)", text)) == {"details", "summary"}
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    width = 0
    for line in outside:
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (width and cells) or cells == width, line
        width = cells
    assert "\u202e" not in answer.text


def test_markdown_has_the_same_numbers(sqlite_service: Service, job_id: str) -> None:
    text = sqlite_service.client.get(f"/v1/jobs/{job_id}/report", headers={"Accept": "text/markdown"}).text
    page = page_of(sqlite_service, job_id)
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.split("\n") if line.startswith("|")]
    cells = [[cell.strip().strip("*") for cell in row] for row in rows]
    for row in page.table("The teacher and every step").rows + page.table("Recall on test").rows:
        assert row in cells


def test_the_command_posts_the_same_job_again(sqlite_service: Service) -> None:
    """Run by a real shell with a curl that keeps what it is told, whatever the job is called."""
    job_id = ended(
        sqlite_service, examples.result(), name='it\'s `id` $(id) "x" 猫', seed=7, max_bytes=200_000
    )
    page = page_of(sqlite_service, job_id)
    command = next(text for text in page.text.split("U=http")[1:] if "/v1/jobs" in text.split("JSON")[0])
    script = "curl() { printf '%s\\n' \"$@\"; cat; }\nU=http" + command.split("\nJSON")[0] + "\nJSON\n"
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    body = said[said.index("{") :]
    assert said.startswith("http://127.0.0.1:8000/v1/jobs\n--json\n@-\n")
    was = sqlite_service.client.get(f"/v1/jobs/{job_id}").json()
    again = sqlite_service.client.post("/v1/jobs", json=json.loads(body))
    assert again.status_code == 202, again.text
    assert again.json()["spec"] == was["spec"]


def test_a_receipt_says_how_to_verify_it(sqlite_service: Service, job_id: str) -> None:
    text = page_of(sqlite_service, job_id).text
    artifact = sqlite_service.client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"][-1]
    assert artifact["sha256"] in text
    assert artifact["id"] in text


def test_gates_and_warnings_are_at_the_top(sqlite_service: Service) -> None:
    gates = [
        {"gate": "max_bytes", "limit": 100_000, "value": 113_250, "passed": False},
        {"gate": "max_accuracy_drop", "limit": 0.05, "value": 0.04, "passed": True, "standard_error": 0.028},
    ]
    result = examples.result(gates=gates, passed=False, warnings=["The answer has 113,250 bytes."])
    page = page_of(sqlite_service, ended(sqlite_service, result, max_bytes=100_000))
    assert page.table("Gates").rows == [
        ["max_bytes", "100,000 bytes", "113,250 bytes", "–", "no"],
        ["max_accuracy_drop", "5.0 points", "4.0 points", "2.8 points", "yes"],
    ]
    assert page.text.index("misses a gate") < page.text.index("every step")
    assert "The answer has 113,250 bytes." in page.text


# ---- jobs that have not succeeded


def test_a_waiting_job_says_what_it_waits_for(sqlite_service: Service) -> None:
    page = page_of(sqlite_service, sqlite_service.job(steps=STEPS))
    assert "queued" in page.text
    assert page.tags("svg") == []
    assert "distill" in page.text


def test_a_running_job_has_what_there_is_so_far(sqlite_service: Service) -> None:
    job_id = sqlite_service.job(steps=STEPS)
    claim = sqlite_service.worker.claim(job_id)
    stages = examples.result()["stages"]
    with transaction() as session:
        jobs.record(
            session,
            claim,
            events=[("stage", stages[0]), ("stage", stages[1])],
            metrics=examples.curves(1, 4),
            phase="step 2 of 2: quantize",
            progress={"fraction": 0.5},
        )
    page = page_of(sqlite_service, job_id)
    assert [row[0] for row in page.table("The teacher and every step").rows] == ["teacher", "1 distill"]
    assert "step 2 of 2: quantize" in page.text
    assert "The last finished step" in page.text
    assert page.table("Recall on test").rows
    first = sqlite_service.client.get(f"/v1/jobs/{job_id}/plots/learning_curves.csv").text
    with transaction() as session:
        jobs.record(session, claim, metrics=examples.curves(1, 6))
    assert len(sqlite_service.client.get(f"/v1/jobs/{job_id}/plots/learning_curves.csv").text) > len(first)


def test_the_stages_of_a_running_job_are_those_of_one_seed(sqlite_service: Service) -> None:
    """Of the one under way: an earlier seed's last step is not its own."""
    job_id = sqlite_service.job(steps=STEPS, seeds=2)
    claim = sqlite_service.worker.claim(job_id)
    teacher, first, second = examples.result()["stages"]
    events = [teacher, first | {"seed": 0}, second | {"seed": 0}, first | {"seed": 1, "size_bytes": 5}]
    with transaction() as session:
        jobs.record(session, claim, events=[("stage", event) for event in events])
    assert page_of(sqlite_service, job_id).table("The teacher and every step").column("size") == [
        "13,770,553",
        "5",
    ]


def test_a_failed_job_says_why(sqlite_service: Service) -> None:
    job_id = sqlite_service.job(steps=STEPS)
    claim = sqlite_service.worker.claim(job_id)
    stages = examples.result()["stages"]
    problem = Problem(422, "TRAINING_DIVERGED", "Training diverged in epoch 3 of 5. Lower learning_rate.")
    with transaction() as session:
        jobs.record(
            session, claim, events=[("stage", stages[0]), ("log", {"level": "warning", "message": "it rose"})]
        )
        jobs.fail(session, claim, problem)
    page = page_of(sqlite_service, job_id)
    assert "TRAINING_DIVERGED: Training diverged in epoch 3 of 5. Lower learning_rate." in page.text
    assert "warning: it rose" in page.text
    assert [row[0] for row in page.table("The teacher and every step").rows] == ["teacher"]
    assert page.table("Attempts").rows[0][5] == "user_error"


def test_results_of_before_classes_were_counted_have_a_report(sqlite_service: Service) -> None:
    result = examples.result()
    for record in result["stages"]:
        for name in ("confusion", "layers", "class_names", "against_teacher"):
            record.pop(name, None)
    page = page_of(sqlite_service, ended(sqlite_service, result))
    assert page.table("The teacher and every step").column("lost to the teacher") == ["–"] * 3
    assert "Recall" not in page.text


def test_several_seeds_have_their_spread(sqlite_service: Service) -> None:
    spread = {"mean": 0.7, "std": 0.0141, "min": 0.69, "max": 0.71, "values": [0.69, 0.71]}
    sizes = {"mean": 10.0, "std": 0.0, "min": 10, "max": 10, "values": [10, 10]}
    summary = [
        {"step": 1, "method": "distill", "splits": {"test": {"accuracy": spread}}, "size_bytes": sizes}
    ]
    result = examples.result(summary=summary)
    page = page_of(sqlite_service, ended(sqlite_service, result, seeds=2))
    assert page.table("Spread over the seeds").rows == [
        ["1 distill", "2", "70.00", "1.41", "69.00", "71.00", "10", "10", "10"]
    ]


def test_a_large_job_is_folded(sqlite_service: Service) -> None:
    """100 classes, 500 layers, 300 epochs: nothing is lost, and what is open can be read."""
    result = examples.result(100, 10, 500, sensitivity=examples.sensitivity(500))
    job_id = ended(sqlite_service, result, examples.curves(1, 300))
    began = time.monotonic()
    answer = sqlite_service.client.get(f"/v1/jobs/{job_id}/report")
    seconds = time.monotonic() - began
    page = Page(answer.text)
    assert len(page.table("Recall on test, every class").rows) == 100
    assert len(page.table("Layers of the network").rows) == 501
    folded = answer.text.split("<details>")
    opened = re.sub(r"<details>.*?</details>", "", answer.text, flags=re.DOTALL)
    assert max(len(table.rows) for table in Page(opened).tables) <= 40
    assert len(folded) > 5
    assert len(answer.text) < 1_500_000
    assert seconds < 10, "two seconds on a quiet machine, see docs/reports.md"


def test_curves_of_steps_that_another_job_did_are_its(sqlite_service: Service) -> None:
    """Of a step that was taken over, and of a whole result that was served again."""
    source = ended(sqlite_service, examples.result(), examples.curves(1, 7) + examples.curves(2, 2))
    result = examples.result()
    result["stages"][1]["shared_from"] = source
    child = ended(sqlite_service, result, examples.curves(2, 3))
    again = ended(sqlite_service, examples.result(reused_from=source))
    for job_id, epochs in ((child, 7 + 3), (again, 7 + 2)):
        items = sqlite_service.client.get(f"/v1/jobs/{job_id}/plots").json()["items"]
        (alt,) = (item["alt"] for item in items if item["name"] == "learning_curves")
        assert f"over {epochs} epochs of 2 training steps" in alt
