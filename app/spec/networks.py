"""Preprocessing, and how a student is asked for."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from app.spec.base import Spec
from app.spec.budget import Budget

Side = Annotated[int, Field(ge=1, le=4096)]
Triple = Annotated[list[float], Field(min_length=3, max_length=3)]


class Preprocessing(Spec):
    """From an image file to the network's input, in this order: convert to RGB, resize, centre crop, /255, (x - mean) / std.

    `resize`: an integer scales the shorter side to it, `[height, width]` scales both, null leaves the size.
    `crop`: the centre `[height, width]` (an integer means a square); null keeps everything.
    EfficientNet-Lite's (x - 127) / 128 is mean 127/255, std 128/255.
    """

    resize: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    crop: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: Triple = [0.485, 0.456, 0.406]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] = [
        0.229,
        0.224,
        0.225,
    ]

    @model_validator(mode="after")
    def _has_a_fixed_size(self) -> "Preprocessing":
        if self.crop is None and not isinstance(self.resize, list):
            raise ValueError(
                "the input size is not fixed: give `crop`, or `resize` as [height, width] "
                "(an integer `resize` scales only the shorter side)"
            )
        return self

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of what the network sees."""
        size = self.crop if self.crop is not None else self.resize
        if isinstance(size, list):
            return size[0], size[1]
        assert size is not None
        return size, size


def scaled_preprocessing(preprocessing: Preprocessing, image_size: int) -> Preprocessing:
    """The same view of a picture at `image_size` x `image_size` pixels: resize and crop in proportion.

    What a student gets when none is given. A rectangular input becomes square by its shorter side. `crop`
    without `resize` cuts pixels out of pictures of unknown size: nothing proportional can be said then, so
    another size than the crop's resizes the shorter side.
    """
    height, width = preprocessing.input_size
    if (height, width) == (image_size, image_size):
        return preprocessing
    scale = image_size / min(height, width)

    def scaled(side: int) -> int:
        return max(round(side * scale), image_size)

    resize: int | list[int]
    if preprocessing.crop is None:
        resize = [image_size, image_size]
    elif isinstance(preprocessing.resize, list):
        resize = [scaled(side) for side in preprocessing.resize]
    else:
        resize = scaled(preprocessing.resize) if preprocessing.resize is not None else image_size
    crop = None if preprocessing.crop is None else image_size
    return preprocessing.model_copy(update={"resize": resize, "crop": crop})


ArchitectureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,100}$")]
Options = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")],
        Annotated[int, Field(ge=-(2**53), le=2**53)] | float | bool | Annotated[str, Field(max_length=200)],
    ],
    Field(max_length=32),
]


def _architecture_shorthand(value: Any) -> Any:
    return {"architecture": value} if isinstance(value, str) else value


class Architecture(Spec):
    """A built-in architecture by name (`GET /v1/architectures`), with its options, e.g. `{"width_mult": 0.5}`."""

    architecture: ArchitectureName
    options: Options = {}


def _student_shorthand(value: Any) -> Any:
    if value == "previous":
        return {"previous": True}
    if value == "teacher":
        return {"teacher": 0}
    return _architecture_shorthand(value)


class Student(Spec):
    """The network a step trains: exactly one of `architecture`, `graph`, `teacher` and `previous`.

    * `architecture` (with `options`): a built-in one, with new weights.
    * `graph`: a graph as docs/formats.md has it (`load_artifact.py model.pt graph` prints one), with new weights.
    * `teacher`: the graph of the teacher at this position of the job's `teachers`, with new weights.
    * `previous`: the network of the step before, with its weights; in the first step the one teacher's own.

    `width` keeps this share of the channels of every layer, for all but `previous`. `budget` takes the largest width, up
    to 1, whose file keeps to so many bytes, whatever training makes of the weights; trained weights deflate better than the
    worst case that is counted, by up to a quarter at 8 bits. A network of another width than 1 begins with PyTorch's own
    default weights.
    `image_size` defaults to the architecture's own; a graph fixes it. `preprocessing` defaults to the first teacher's,
    scaled to `image_size`. The head of a built-in architecture gets the data's classes.
    """

    architecture: ArchitectureName | None = None
    options: Options = {}
    graph: dict[str, Any] | None = None
    teacher: Annotated[int, Field(ge=0, le=15)] | None = None
    previous: Literal[True] | None = None
    width: Annotated[float, Field(gt=0, le=1)] = 1.0
    budget: Budget | None = None
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    preprocessing: Preprocessing | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Student":
        sources = ("architecture", "graph", "teacher", "previous")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a student is exactly one of {', '.join(sources)}, not {' and '.join(given) or 'none'}"
            )
        if self.options and self.architecture is None:
            raise ValueError(
                f"options belong to a built-in architecture, and this student is a {given[0]}: leave them out"
            )
        if self.image_size is not None and self.architecture is None:
            raise ValueError(
                f"image_size is for built-in architectures; a {given[0]} has its own: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _one_width(self) -> "Student":
        given = [name for name, is_given in (("width", self.width != 1), ("budget", self.budget)) if is_given]
        if given and self.previous:
            raise ValueError(
                f"{given[0]} makes a network with new weights, and previous keeps those that are there: leave "
                f"{given[0]} out or use a prune step"
            )
        if len(given) == 2:
            raise ValueError(
                f"budget finds the width itself, and width {self.width} sets it: give only one of width and budget"
            )
        return self

    @model_validator(mode="after")
    def _sizes_agree(self) -> "Student":
        if self.preprocessing is not None and self.image_size is not None:
            height, width = self.preprocessing.input_size
            if (height, width) != (self.image_size, self.image_size):
                raise ValueError(
                    f"image_size {self.image_size} differs from the preprocessing's input of {height}x{width}: give only one"
                )
        return self


# `"student": "report/final"` is short for `{"architecture": "report/final"}`, "teacher" for `{"teacher": 0}` and
# "previous" for `{"previous": true}`.
StudentField = Annotated[Student, BeforeValidator(_student_shorthand)]
