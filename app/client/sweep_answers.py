"""What the service answers about sweeps, comparisons and presets, typed; as `app.client.answers`."""

from typing import Any

from app.client.answers import Answer


class SweepCounts(Answer):
    """Of its jobs, shared stages apart. `infeasible`: what was asked cannot be, as a budget below the smallest network."""

    queued: int
    running: int
    succeeded: int
    failed: int
    infeasible: int
    cancelled: int


class SweepShared(Answer):
    """What several jobs have in common and was done once."""

    stage_jobs: int
    children_served: int
    steps_saved: int


class SweepProgress(Answer):
    fraction: float
    eta_seconds: float | None


class SweepSummaryView(Answer):
    """`state`: what its jobs are doing."""

    id: str
    name: str | None
    preset: str | None
    labels: dict[str, str]
    state: str
    paused: bool
    counts: SweepCounts
    shared: SweepShared
    version: int
    created_at: str
    finished_at: str | None
    links: dict[str, str]


class SweepView(SweepSummaryView):
    """`spec`: of a preset the one that it stands for."""

    spec: dict[str, Any]
    progress: SweepProgress


class PlannedJobView(Answer):
    """`error`: why it is infeasible; null: it can be tried."""

    point: int
    seed: int
    params: dict[str, Any]
    begun_steps: int
    error: dict[str, Any] | None


class PlannedStageView(Answer):
    """Steps that `served` jobs begin with, done once."""

    seed: int
    methods: list[str]
    begun_steps: int
    served: int


class SweepPlanView(Answer):
    """A sweep as it would run."""

    spec: dict[str, Any]
    num_jobs: int
    children: list[PlannedJobView]
    stages: list[PlannedStageView]
    shared: SweepShared
    estimated_macs: float | None
    warnings: list[str]


# ---- tables


class Column(Answer):
    name: str
    type: str
    unit: str | None
    description: str
    better: str | None = None


class AxisView(Answer):
    """`column`: where its values are in the rows."""

    name: str
    column: str


class Shared(Answer):
    teacher: bool | None
    splits: bool | None
    version: bool | None


class Digests(Answer):
    teacher: list[list[str]]
    splits: dict[str, list[str]]
    version: list[str]


class CommonGround(Answer):
    """Whether the jobs may be compared: the same teacher, the same images, the same version."""

    shared: Shared
    digests: Digests
    warnings: list[str]


class TableView(CommonGround):
    sweep_id: str | None
    kind: str
    axes: list[AxisView]
    columns: list[Column]
    rows: list[dict[str, Any]]


# ---- statements


class Spread(Answer):
    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    min: float
    max: float


class Difference(Answer):
    n: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None = None
    note: str | None = None


class Discordance(Answer):
    num_images: int
    num_only_first: int
    num_only_second: int
    difference: float
    low: float
    high: float
    p: float


class PointSummary(Answer):
    point: int
    name: str
    params: dict[str, Any]
    states: dict[str, int]
    seeds: list[int]
    metrics: dict[str, Spread]
    differences: dict[str, Difference]
    against_teacher: dict[str, Discordance]


class Apart(Answer):
    """A job that gave no answer (yet), and why."""

    job_id: str
    point: int
    name: str
    seed: int
    state: str
    code: str | None
    reason: str | None


class Comparison(Answer):
    point: int
    name: str
    difference: Difference


class Winner(Answer):
    point: int
    name: str
    params: dict[str, Any]


class Trend(Answer):
    axis: str
    within: dict[str, Any]
    num_values: int
    n: int
    rho: float | None
    p: float | None
    note: str | None


class Summary(Answer):
    """`winner` is null where no point is better than every other beyond doubt; `verdict` is the sentence on it."""

    axes: list[str]
    metric: str
    better: str
    confidence: float
    alpha: float
    baseline: int | None
    points: list[PointSummary]
    apart: list[Apart]
    best: int | None
    winner: Winner | None
    verdict: str
    comparisons: list[Comparison]
    trends: list[Trend]


class SummaryView(Summary, CommonGround):
    sweep_id: str | None


class ComparisonView(TableView):
    """The table of some jobs, and what it says; the axis is `job`."""

    summary: Summary


class ParetoPoint(Answer):
    point: int
    name: str
    params: dict[str, Any]
    job_id: str | None
    seed: int | None
    n: int
    x: float
    y: float
    on_front: bool


class ParetoView(Answer):
    """`on_front`: nothing else is at least as good in both numbers and better in one."""

    sweep_id: str | None
    over: str
    x: Column
    y: Column
    items: list[ParetoPoint]
    left_out: int
    warnings: list[str]


# ---- presets


class TeachersNeeded(Answer):
    min: int
    max: int


class Cost(Answer):
    jobs: int
    epochs: int


class PresetView(Answer):
    """`options`: the JSON schema of what `options` may say."""

    name: str
    title: str
    description: str
    asks: str
    found: str
    rows: list[str]
    teachers: TeachersNeeded
    splits: list[str]
    options: dict[str, Any]
    short: dict[str, Any]
    curve_within_jobs: bool
    cost: dict[str, Cost]
    links: dict[str, str]


# ---- reports


class PlotView(Answer):
    """`alt`: what it shows, in words and numbers."""

    name: str
    title: str
    alt: str
    links: dict[str, str]


class PlotList(Answer):
    items: list[PlotView]
