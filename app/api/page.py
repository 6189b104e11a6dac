"""The page at `/` and its files: from this server alone, without inline scripts, kept by browsers and never stale."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app.errors import Problem
from app.web import PageFile, page

router = APIRouter(include_in_schema=False)

# Scripts and styles are this server's files, and talk to nobody else. blob: is a download that a key was needed for.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def is_wanted(request: Request) -> bool:
    """Whether `/` is asked for by a browser, and not by a program."""
    return "text/html" in request.headers.get("accept", "").lower()


def index(request: Request) -> Response:
    """Asked for anew each time, and mostly answered 304: it names the files of this version."""
    return _answer(request, page().index, {"Cache-Control": "no-cache", "Vary": "Accept"})


@router.get("/web/{digest}/{path:path}")
def asset(
    digest: Annotated[str, Path(max_length=64)], path: Annotated[str, Path(max_length=200)], request: Request
) -> Response:
    found = page().files.get(path)
    if found is None:
        raise Problem(
            404, "NOT_FOUND", "The page has no such file. Load it again: GET / with Accept: text/html."
        )
    # While versions change, a page of the one may ask a server of the other: it gets what there is, not for keeps.
    is_this_version = digest == page().digest
    keep = "public, max-age=31536000, immutable" if is_this_version else "no-store"
    return _answer(request, found, {"Cache-Control": keep})


def _answer(request: Request, file: PageFile, headers: dict[str, str]) -> Response:
    headers = {**headers, "ETag": file.etag, "Content-Security-Policy": _POLICY}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
