"""An upload, or the operator's folder, becomes an index and a pack (docs/formats.md, "Data set")."""

import json
from pathlib import Path
from typing import Any

from app.errors import Problem
from app.spec.resources import DatasetSpec
from worker.datasets import layout, reading
from worker.datasets.entries import Limits
from worker.datasets.images import quiet_pillow
from worker.datasets.reading import Contents, Image, Progress
from worker.datasets.report import check_classes, make_report
from worker.datasets.splits import place
from worker.whole_files import appears_whole


def build_dataset(
    spec: DatasetSpec,
    source: Path,
    out_dir: Path,
    *,
    progress: Progress = lambda done, total, unit: None,
    limits: Limits | None = None,
    num_threads: int | None = None,
) -> dict[str, Any]:
    """Check every image of `source` and write `out_dir/index.json` and, for an archive, `out_dir/pack`.

    `source` is a zip, a tar (.gz, .xz) or a folder; a folder is indexed in place and has no pack. Returns the
    report: class names, splits with their digests, what was skipped, warnings. Raises Problem 422, leaving
    neither file behind.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    pack = out_dir / "pack"
    try:
        with quiet_pillow():
            contents = reading.read(
                source,
                pack,
                max_bad_images=spec.max_bad_images,
                progress=progress,
                limits=limits or Limits(),
                num_threads=num_threads,
            )
        _refuse_nothing(contents)
        bad_paths = [path for path, _ in contents.bad]
        arranged = layout.arrange(
            [image.path for image in contents.images], contents.folders, spec.layout, bad_paths
        )
        images, warnings = place(contents.images, arranged, spec)
        warnings += check_classes(images, arranged.class_names)
        report = make_report(images, arranged, contents, warnings)
        _write_index(out_dir / "index.json", arranged.class_names, images)
        return report
    except BaseException:
        pack.unlink(missing_ok=True)
        raise


def _refuse_nothing(contents: Contents) -> None:
    if contents.images:
        return
    within = f", among them the archive {contents.archives[0]!r}: unpack it" if contents.archives else ""
    raise Problem(
        422,
        "NO_IMAGES",
        f"There is no image in it ({contents.ignored} other files{within}, {len(contents.bad)} bad images): "
        "PNG, JPEG, WebP and BMP are read.",
    )


def _write_index(path: Path, class_names: list[str], images: list[Image]) -> None:
    rows = [
        {
            "path": image.path,
            "split": image.split,
            "label": image.label,
            "offset": image.offset,
            "nbytes": image.nbytes,
            "sha256": image.sha256,
        }
        for image in images
    ]
    content = json.dumps({"class_names": class_names, "images": rows}, ensure_ascii=False)
    with appears_whole(path) as file:
        file.write(content.encode())
