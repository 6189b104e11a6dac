"""The commands `fewbytes submit` and `fewbytes sweep`."""

import json
from typing import Annotated, Any

import typer

from app.cli import figures
from app.cli.options import AsJson, Key, Quiet, Set, Url, service, spec_of
from app.cli.tables import Column, console, terminal_table
from app.cli.terminal import refuse, say, tell
from app.cli.watch import follow
from app.client import Client
from app.client.answers import JobView, PlanView
from app.client.names import Names
from app.client.specs import set_field
from app.client.sweep_answers import PlannedJobView, SweepPlanView, SweepView

app = typer.Typer()

Source = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="A file, JSON or YAML; - reads standard input.", show_default=False),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end, as `fewbytes watch` does.")]
Validate = Annotated[
    bool, typer.Option("--validate", help="Only say what would run, and what is wrong. Nothing is stored.")
]
Once = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        help="Submit once, however often this is run: the same key and spec again give the same id.",
    ),
]


@app.command(
    epilog="Example: fewbytes submit job.yaml --set steps.0.alpha=0.5 --watch\n\nTeachers and the data set may be named "
    "by id, or by the name that they were registered with."
)
def submit(
    spec: Source,
    set_: Set = [],  # noqa: B006  # typer reads the default and changes nothing
    watch: Watch = False,
    validate: Validate = False,
    idempotency_key: Once = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a job."""
    with service(url, key) as client:
        body = spec_of(spec, set_)
        if isinstance(body, dict) and ("job" in body or "preset" in body) and "steps" not in body:
            refuse("This is the spec of a sweep: fewbytes sweep takes it.")
        body = Names(client).in_job(body)
        if validate:
            plan = client.jobs.validate(body)
            _say_plan(plan, as_json)
            return
        job = client.jobs.submit(body, idempotency_key=idempotency_key)
        _after(client, job, f"{job.id} {job.state}", watch=watch, quiet=quiet, as_json=as_json)


@app.command(
    epilog="Example: fewbytes sweep alphas.yaml --watch\n\nExample: fewbytes sweep --preset alpha --teacher big "
    "--dataset food --option short=true --watch"
)
def sweep(
    spec: Annotated[
        str | None, typer.Argument(metavar="SPEC", help="A file, JSON or YAML; - reads standard input.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="In place of a spec: one of `fewbytes presets`.")] = None,
    teacher: Annotated[
        list[str], typer.Option(help="For the preset, by id or name. May be repeated, the weaker first.")
    ] = [],  # noqa: B006  # typer reads the default and changes nothing
    dataset: Annotated[str | None, typer.Option(help="For the preset, by id or name.")] = None,
    option: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="An option of the preset: epochs=5. May be repeated."),
    ] = [],  # noqa: B006  # typer reads the default and changes nothing
    set_: Set = [],  # noqa: B006  # typer reads the default and changes nothing
    watch: Watch = False,
    validate: Validate = False,
    idempotency_key: Once = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Submit a sweep: many jobs from one spec or preset."""
    if (spec is None) == (preset is None):
        refuse("Give either a spec or --preset NAME. `fewbytes presets` shows those there are.")
    if preset is None and (teacher or dataset or option):
        refuse(
            "--teacher, --dataset and --option go with --preset. In a spec they are fields of its job: see --set."
        )
    with service(url, key) as client:
        body = spec_of(spec, set_) if spec is not None else _of_preset(preset, teacher, dataset, option, set_)
        if isinstance(body, dict) and "steps" in body:
            refuse(
                "This is the spec of a job: fewbytes submit takes it. A sweep has it in `job`, beside `axes`."
            )
        body = Names(client).in_sweep(body)
        if validate:
            _say_sweep_plan(client.sweeps.validate(body), as_json)
            return
        made = client.sweeps.submit(body, idempotency_key=idempotency_key)
        said = f"{made.id} {made.state}: {_num_jobs(made)} jobs"
        _after(client, made, said, watch=watch, quiet=quiet, as_json=as_json)


def _after(
    client: Client, made: JobView | SweepView, said: str, *, watch: bool, quiet: bool, as_json: bool
) -> None:
    """What was submitted: told, or followed."""
    if as_json and not watch:
        tell(made.model_dump_json(indent=2))
    elif quiet:
        tell(made.id)
    elif not watch:
        tell(said)
        say(f"Follow it: fewbytes watch {made.id}")
    if watch:
        follow(client, made.id, quiet=quiet)


def _of_preset(
    preset: str | None,
    teachers: list[str],
    dataset: str | None,
    options: list[str],
    assignments: list[str],
) -> Any:
    """The body that asks for a preset. What it needs and is not given, the service names."""
    body: Any = {"preset": preset, "teachers": teachers, "options": {}}
    if dataset is not None:
        body["dataset"] = dataset
    for option in options:
        body = set_field(body, f"options.{option}")
    for assignment in assignments:
        body = set_field(body, assignment)
    return body


def _num_jobs(sweep: SweepView) -> int:
    return sum(sweep.counts.model_dump().values())


def _say_plan(plan: PlanView, as_json: bool) -> None:
    if as_json:
        tell(plan.model_dump_json(indent=2))
        return
    images = ", ".join(f"{split} {number}" for split, number in plan.dataset.get("num_images", {}).items())
    for teacher in plan.teachers:
        tell(f"teacher  {teacher['id']}  {teacher.get('name') or ''}".rstrip())
    tell(f"data set {plan.dataset['id']}  {plan.dataset.get('num_classes')} classes; {images}")
    columns = [
        Column("method", "step"),
        Column("parameters", "parameters", right=True),
        Column("macs", "MACs", right=True),
        Column("weight_bytes", "bytes of weights", right=True),
        Column("job_macs", "MACs of the step", right=True),
    ]
    rows = [
        estimate | {"method": f"{number} {estimate.get('method')}"}
        for number, estimate in enumerate(plan.estimates, 1)
    ]
    console().print(terminal_table(columns, rows))
    for warning in plan.warnings:
        say(f"warning: {warning}")
    say("It can run. Nothing was stored.")


def _say_sweep_plan(plan: SweepPlanView, as_json: bool) -> None:
    if as_json:
        tell(plan.model_dump_json(indent=2))
        return
    shared, macs = plan.shared, plan.estimated_macs
    cost = "" if macs is None else f", about {macs:.3g} multiply-adds"
    tell(f"{plan.num_jobs} jobs{cost}")
    if shared.stage_jobs:
        served, saved = shared.children_served, shared.steps_saved
        tell(
            f"shared stages among them: {shared.stage_jobs}, for {served} jobs; steps not done again: {saved}"
        )
    infeasible = [child for child in plan.children if child.error is not None]
    for child in infeasible:
        tell(f"infeasible: {_params(child)}: {(child.error or {}).get('detail')}")
    for warning in plan.warnings:
        say(f"warning: {warning}")
    say("It can run. Nothing was stored.")


def _params(child: PlannedJobView) -> str:
    params = ", ".join(f"{name} {figures.value(value)}" for name, value in child.params.items())
    return f"{params}, seed {child.seed}" if params else f"seed {child.seed}"


def as_text(body: Any) -> str:
    """A spec as JSON that can be edited and sent."""
    return json.dumps(body, indent=2, ensure_ascii=False)
