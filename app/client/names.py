"""Teachers and data sets by their names, where a spec wants their ids."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from app.client.answers import DatasetView, TeacherView
from app.client.client import Client
from app.client.errors import FewbytesError

Kind = Literal["teacher", "dataset"]

_ID = {"teacher": re.compile(r"tch_[0-9a-z]{1,40}"), "dataset": re.compile(r"dst_[0-9a-z]{1,40}")}
_WORD = {"teacher": "teacher", "dataset": "data set"}


class Names:
    """Ids by name, asked for once. What has the form of an id is one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._rows: dict[Kind, list[TeacherView | DatasetView]] = {}

    def id_of(self, kind: Kind, text: str) -> str:
        """Raises FewbytesError NO_SUCH_NAME, AMBIGUOUS_NAME.

        Of several rows with one name, a rejected one does not count unless all are.
        """
        if _ID[kind].fullmatch(text):
            return text
        named = [row for row in self._all(kind) if row.name == text]
        found = [row for row in named if row.state != "rejected"] or named
        if len(found) == 1:
            return found[0].id
        word = _WORD[kind]
        if not found:
            detail = f"There is no {word} {text!r}. `fewbytes list {kind}s` shows those there are."
            raise FewbytesError("NO_SUCH_NAME", detail)
        ids = ", ".join(row.id for row in found)
        raise FewbytesError(
            "AMBIGUOUS_NAME",
            f"{len(found)} {word}s are named {text!r}: {ids}. Give the id of the one you mean.",
        )

    def _all(self, kind: Kind) -> list[TeacherView | DatasetView]:
        if kind not in self._rows:
            rows: Iterable[TeacherView | DatasetView] = (
                self._client.teachers.all() if kind == "teacher" else self._client.datasets.all()
            )
            self._rows[kind] = list(rows)
        return self._rows[kind]

    # ---- in specs; what is not of the expected shape stays, for the service to say what is wrong with it

    def in_job(self, spec: Any) -> Any:
        """A job's spec with ids for names."""
        if not isinstance(spec, dict):
            return spec
        fields = {name: self._field(f"/{name}", value) for name, value in spec.items()}
        return fields

    def in_sweep(self, spec: Any) -> Any:
        """A sweep's spec with ids for names: of a preset, in its job, along its axes."""
        if not isinstance(spec, dict):
            return spec
        resolved = self.in_job(spec)
        if "job" in spec:
            resolved["job"] = self.in_job(spec["job"])
        if isinstance(spec.get("axes"), list):
            resolved["axes"] = [self._axis(axis) for axis in spec["axes"]]
        return resolved

    def _axis(self, axis: Any) -> Any:
        if not isinstance(axis, dict):
            return axis
        axis = dict(axis)
        if isinstance(axis.get("zip"), list):
            axis["zip"] = [self._axis(inner) for inner in axis["zip"]]
        if isinstance(axis.get("values"), list):
            fields = axis.get("field")
            for field in fields if isinstance(fields, list) else [fields]:
                axis["values"] = [self._field(field, value) for value in axis["values"]]
        if isinstance(axis.get("points"), list):
            axis["points"] = [self._point(point) for point in axis["points"]]
        return axis

    def _point(self, point: Any) -> Any:
        if not isinstance(point, dict) or not isinstance(point.get("set"), dict):
            return point
        return point | {"set": {field: self._field(field, value) for field, value in point["set"].items()}}

    def _field(self, pointer: Any, value: Any) -> Any:
        """The value of one field of a job, which a JSON pointer names."""
        if pointer == "/teachers" and isinstance(value, list):
            return [self.id_of("teacher", item) if isinstance(item, str) else item for item in value]
        if isinstance(pointer, str) and re.fullmatch(r"/teachers/\d+", pointer) and isinstance(value, str):
            return self.id_of("teacher", value)
        if pointer == "/dataset" and isinstance(value, str):
            return self.id_of("dataset", value)
        return value
