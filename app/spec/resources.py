"""What is asked when a teacher or a data set is registered."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from app.spec.base import Name, Seed, Spec
from app.spec.networks import Architecture, Preprocessing, Side, _architecture_shorthand

ClassNames = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=2, max_length=10_000)
]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]


Prefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{0,200}$")]


class TeacherSpec(Spec):
    """A checkpoint and what is needed to run it.

    `architecture`: a built-in name; null when the file brings its graph (an artifact of ours, or one made by
    trace_network.py). `preprocessing` and `class_names` may be left out when the file carries them.

    The file may also be a table of soft labels by picture (docs/formats.md), of a teacher that cannot be uploaded itself;
    it needs none of these.
    """

    name: Name | None = None
    file: FileName
    architecture: Annotated[Architecture | None, BeforeValidator(_architecture_shorthand)] = None
    preprocessing: Preprocessing | None = None
    class_names: ClassNames | None = None
    key_map: Annotated[dict[Prefix, Prefix], Field(max_length=64)] = {}
    """Tensors that are named otherwise in the file: `{"convolution.": "cnn."}` renames every tensor that begins with
    `convolution.`. Of several prefixes that fit a name the longest counts; `""` fits all."""
    declared_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """What the uploader measured (0..1). Jobs compare it with what they measure and warn when the two are far apart."""

    @model_validator(mode="after")
    def _class_names_differ(self) -> "TeacherSpec":
        if self.class_names and len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names holds a name twice: every class needs its own")
        return self


class DatasetSpec(Spec):
    """Photos in classes: an uploaded zip or tar (`file`), or a folder of the operator's (`folder`, by its registered name).

    Layouts: `class_folders` is `[train|val|test|unlabeled/]<class>/<image>`; `flat` is the course's
    `[training|validation|testing/]<class>_<n>.jpg`; `auto` looks. Without split folders the images are split by
    `val_fraction` and `test_fraction`, stratified, by `split_seed`.
    """

    name: Name | None = None
    file: FileName | None = None
    folder: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    layout: Literal["auto", "class_folders", "flat"] = "auto"
    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    test_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    split_seed: Seed = 0
    max_bad_images: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Images that cannot be decoded are skipped and counted up to this many; one more refuses the data set."""

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetSpec":
        if (self.file is None) == (self.folder is None):
            raise ValueError(
                "give exactly one of `file` (an upload) and `folder` (a name the operator registered)"
            )
        return self


class ArchitectureQuery(Architecture):
    """A layer table that was asked for."""

    num_classes: Annotated[int, Field(ge=1, le=100_000)]
    image_size: Side


Inspection = dict[str, Any]
