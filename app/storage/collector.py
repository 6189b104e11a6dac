"""Nothing piles up: what nobody needs any more is removed, every few minutes, by one process for all.

`docs/operations.md` says what is kept for how long. Every kind of removal bears being done twice at once, so the
operator's own `fewbytes collect` asks nobody.
"""

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.db import db_now, reading, transaction
from app.scheduling import duties
from app.settings import Settings
from app.storage import leftovers, references, removal
from app.storage.leftovers import HOUR_SECONDS, Removed
from app.storage.objects import Storage
from app.tables import AuditEntry, Duty, Worker

log = logging.getLogger(__name__)

COLLECT_SECONDS = 300.0
# Long enough for a whole round; who died in one is replaced after it.
_DUTY_SECONDS = 2 * COLLECT_SECONDS
_FIRST_AFTER_SECONDS = 60.0
_MOST_SHOWN = 100_000
_AT_ONCE = 500
_FOLDER = "data folder"


class ForeignFolderError(Exception):
    """The data folder belongs to another database, which may name every object that this one does not."""


def old_jobs(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """Jobs that ended longer than `keep_jobs_days` ago. Their artifacts' bytes go in a later round."""
    if not config.keep_jobs_days:
        return
    if dry_run:
        with reading() as session:
            ids = removal.old_jobs(session, config.keep_jobs_days, _MOST_SHOWN)
        yield from (Removed(f"job {ident}", 0) for ident in ids)
        return
    while True:
        with transaction() as session:
            removed = removal.remove_old(session, config.keep_jobs_days)
        yield from (Removed(f"job {ident}", 0) for ident in removed)
        if not removed:
            return


def silent_workers(config: Settings, *, dry_run: bool) -> Iterator[Removed]:
    """Rows of worker processes that have not reported for `collect_after_hours`."""
    silent = Worker.seen_at < db_now() - config.collect_after_hours * HOUR_SECONDS
    with reading() as session:
        ids = session.scalars(select(Worker.id).where(silent)).all()
    if ids and not dry_run:
        with transaction() as session:
            session.execute(delete(Worker).where(Worker.id.in_(ids), silent))
    yield from (Removed(f"row of the worker {ident}", 0) for ident in ids)


_KINDS = (
    old_jobs,
    leftovers.uploads,
    leftovers.work_folders,
    leftovers.decoded_images,
    leftovers.shared_files,
    leftovers.partial_objects,
    leftovers.objects,
    silent_workers,
)


def collect(config: Settings, *, dry_run: bool = False) -> Iterator[Removed]:
    """Remove, or with `dry_run` only name, what nobody needs; yields each thing as it goes.

    Raises ForeignFolderError before anything is removed.
    """
    _check_folder(config.resolved_data_dir, dry_run=dry_run)
    yield from chain.from_iterable(kind(config, dry_run=dry_run) for kind in _KINDS)


class Collector:
    """The thread that collects while it has the duty. `start` it once a process."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._owner = duties.new_owner()
        self._stopping = threading.Event()
        self._on_duty = False
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End after the removal under way, and give the duty up."""
        self._stopping.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        pause = _FIRST_AFTER_SECONDS
        while not self._stopping.wait(pause):
            pause = COLLECT_SECONDS
            try:
                self._round()
            except ForeignFolderError as error:
                log.error("nothing is collected: %s", error)
            except (SQLAlchemyError, OSError) as error:
                log.warning(
                    "not all was collected, the next round tries again: %s", str(error).splitlines()[0]
                )
            except Exception:  # a bug in here must not let everything pile up until the process ends
                log.exception("the collector hit a bug")
        if self._on_duty:
            with (
                suppress(SQLAlchemyError),
                transaction() as session,
            ):  # the others wait until its time is over
                duties.give_up(session, self._owner)

    def _round(self) -> None:
        with reading() as session:
            if duties.is_anothers(session, "collect", self._owner):
                self._on_duty = False
                return
        with transaction() as session:
            self._on_duty = duties.hold(session, "collect", self._owner, _DUTY_SECONDS)
        if not self._on_duty:
            return
        num_things = num_bytes = 0
        for removed in collect(self._config):
            num_things, num_bytes = num_things + 1, num_bytes + removed.size_bytes
            if self._stopping.is_set():
                break
        if num_things:
            log.info("collected %d things, %d bytes", num_things, num_bytes)


def _check_folder(data_dir: Path, *, dry_run: bool) -> None:
    """Whether folder and database belong together: both were given the same mark.

    To a database that is empty, or somebody else's, every object looks like one that nobody needs. A folder without a
    mark gets one when it is empty, or the database names (or once named) something in it. Raises ForeignFolderError.
    """
    mark = data_dir / "objects" / "belongs-to"
    with suppress(FileNotFoundError):
        with reading() as session:
            known = session.scalar(select(Duty.owner).where(Duty.name == _FOLDER))
        if mark.read_text() == known:
            return
        raise ForeignFolderError(
            f"{data_dir} belongs to another database than this one. Set FEWBYTES_DATA_DIR or DATABASE_URL right. If the "
            f"folder is to belong to this database from now on, delete {mark}."
        )
    if not _names_something_in(data_dir):
        raise ForeignFolderError(
            f"This database names none of the objects in {data_dir}: the folder seems to be another's. Set "
            "FEWBYTES_DATA_DIR or DATABASE_URL right. If they belong together, upload a file first."
        )
    if not dry_run:
        with transaction() as session:
            _write(mark, _mark_of(session))


def _names_something_in(data_dir: Path) -> bool:
    """Whether the folder is empty, or an object in it has, or once had, a name in the database."""
    found = (sha256 for sha256, _ in Storage(data_dir).old_objects(0))
    some = list(islice(found, _AT_ONCE))
    if not some:
        return True
    while some:
        with reading() as session:
            put = AuditEntry.detail["sha256"].as_string().in_(some)
            if references.to(session, some) or session.scalar(select(AuditEntry.id).where(put).limit(1)):
                return True
        some = list(islice(found, _AT_ONCE))
    return False


def _mark_of(session: Session) -> str:
    """The database's own, made if it has none. It is kept where nothing is renewed: as a duty that nobody takes."""
    known = session.scalar(select(Duty.owner).where(Duty.name == _FOLDER))
    if known is None:
        duties.hold(session, _FOLDER, secrets.token_hex(16), seconds=0.0)
        known = session.scalars(select(Duty.owner).where(Duty.name == _FOLDER)).one()
    return known


def _write(mark: Path, text: str) -> None:
    mark.parent.mkdir(parents=True, exist_ok=True)
    partial = mark.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(mark)
    finally:
        partial.unlink(missing_ok=True)
