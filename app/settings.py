"""Settings, read from the environment once. The three URLs are the whole difference between a laptop and a cluster."""

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FEWBYTES_", env_file=".env", extra="ignore")

    data_dir: Path = Field(
        Path("data"), description="Objects, job folders and the embedded database live here."
    )
    # The names every platform sets for its add-ons, hence no prefix.
    database_url: str = Field(
        "",
        validation_alias=AliasChoices("DATABASE_URL", "FEWBYTES_DATABASE_URL"),
        description="A PostgreSQL server (postgresql+psycopg://…). Default: SQLite in the data folder.",
    )
    broker_url: str = Field(
        "",
        validation_alias=AliasChoices("BROKER_URL", "FEWBYTES_BROKER_URL"),
        description="A Redis or Valkey server (redis://…). Default: `fewbytes up` brings its own.",
    )

    host: str = Field("127.0.0.1", description="The address that the API listens on.")
    port: int = Field(8000, description="Its port.")
    allow_open: bool = Field(
        False, description="Listen on other addresses than this machine's own, without keys."
    )

    lease_seconds: float = Field(20.0, gt=0, description="A worker silent for longer has lost its job.")
    cancel_grace_seconds: float = Field(
        30.0, ge=0, description="Time a trainer has to save its best student."
    )
    max_failures: int = Field(3, ge=1, description="Attempts lost to crashes before a job fails.")
    poll_seconds: float = Field(
        1.0, gt=0, description="An idle worker looks for jobs this often, whether a message came or not."
    )
    retry_pause_seconds: float = Field(
        5.0, ge=0, description="Before the third attempt of a job, doubled for each further one."
    )
    worker_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="What a job may ask of this worker. Default: the machine's, or its GPU's, memory.",
    )
    fair_share_hours: float = Field(
        24.0, gt=0, description="Between tenants, the work of the last hours decides whose turn it is."
    )
    min_free_bytes: int = Field(
        256 << 20, ge=0, description="With less free on the disk, uploads are refused and no job is started."
    )
    collect_after_hours: float = Field(
        24.0, gt=0, description="Objects that nothing refers to, and other leftovers, are deleted then."
    )
    keep_work_days: float = Field(
        7.0, ge=0, description="A failed or cancelled job can be tried again from its checkpoint for so long."
    )
    keep_jobs_days: float = Field(
        0.0, ge=0, description="Ended jobs are deleted after so long, with their artifacts; 0: never."
    )
    checkpoint_seconds: float = Field(
        10.0, gt=0, description="Training progress at risk when a trainer dies."
    )

    # What one tenant may have, unless it has limits of its own (`fewbytes tenants set`); 0: no limit.
    tenant_max_bytes: int = Field(0, ge=0, description="Bytes that one tenant may store.")
    tenant_max_files: int = Field(10_000, ge=0, description="Files that one tenant may have.")
    tenant_max_queued_jobs: int = Field(10_000, ge=0, description="Jobs of one tenant that may wait.")
    tenant_max_running_jobs: int = Field(0, ge=0, description="Jobs of one tenant that run at once.")
    max_sweep_jobs: int = Field(1000, ge=1, description="Jobs of one sweep: points of its grid times seeds.")
    requests_per_minute: int = Field(6000, ge=0, description="Of one key, in each API process; 0: no limit.")

    max_file_bytes: int = Field(4 << 30, description="Largest upload.")
    max_body_bytes: int = Field(256 << 10, description="Largest JSON body.")
    head_seconds: float = Field(10.0, gt=0, description="A request's head has arrived by then.")
    body_seconds: float = Field(30.0, gt=0, description="A JSON body has arrived by then.")
    silent_seconds: float = Field(
        60.0, gt=0, description="A body that does not come, or an answer that is not read, for so long ends."
    )
    min_bytes_per_second: int = Field(1024, ge=0, description="The slowest upload and download we wait for.")
    upload_expiry_seconds: float = Field(
        24 * 3600.0, description="An unfinished resumable upload is dropped then."
    )
    folders: dict[str, Path] = Field(
        default_factory=dict,
        description='Image folders on this machine that data sets may name: FEWBYTES_FOLDERS=\'{"food": "/srv/food"}\'.',
    )
    inspect_wait_seconds: float = Field(
        60.0, description="How long POST teachers/datasets waits for the verdict."
    )
    log_format: Literal["text", "json"] = Field("text", description="json: one JSON object a line.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG: every request; INFO: those refused or slow."
    )
    num_threads: int = Field(0, ge=0, description="Torch threads of one trainer; 0: one per core.")
    warm_start: bool = Field(
        True,
        description="Beside each worker a process with PyTorch imported, of which trainers are forked: they start in a "
        "moment, for half a gigabyte of memory.",
    )
    inspection_memory_bytes: int = Field(
        16 << 30, ge=0, description="What looking at one upload may take; 0: no limit."
    )

    trainer_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="What a trainer on the CPU may take, decoded images included. Default: nine tenths of the machine's "
        "(or the container's) memory; 0: no limit, else at least 1 GiB, which PyTorch alone needs. Not on CUDA, whose "
        "driver maps far more than it uses.",
    )
    trainer_nice: int = Field(
        10,
        ge=0,
        le=19,
        description="How far trainers stand back (nice) where anything else wants a core: the API, the database; 0: not "
        "at all.",
    )
    max_job_macs: float = Field(
        1e21,
        ge=0,
        description="Estimated multiply-adds of one job, all seeds together; 0: no limit. "
        "At 2e14 a second, 1e21 take two months.",
    )
    max_job_seconds: float = Field(
        30 * 86400.0, gt=0, description="Longest run of one job; it is the deadline of jobs that name none."
    )

    @field_validator("trainer_memory_bytes")
    @classmethod
    def _torch_can_start(cls, value: int | None) -> int | None:
        if value is not None and 0 < value < 1 << 30:
            raise ValueError(
                f"PyTorch does not start in {value} bytes: give at least {1 << 30}, or 0 for no limit"
            )
        return value

    @cached_property
    def resolved_data_dir(self) -> Path:
        return self.data_dir.resolve()

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.resolved_data_dir / 'fewbytes.db'}"


@lru_cache
def settings() -> Settings:
    return Settings()  # type: ignore[call-arg]  # pydantic fills every field from the environment
