"""`/docs`: the OpenAPI to read and to try, from this server alone, without the internet and without inline scripts."""

from importlib import resources
from typing import Literal

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

# The scripts may talk to this server and nobody else; the page's pictures are in its style sheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>fewbytes</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null});\n'
_TYPES = {"css": "text/css", "js": "text/javascript"}


@router.get("/docs")
def page() -> Response:
    return Response(_PAGE, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


@router.get("/docs/{name}")
def asset(name: Literal["swagger-ui.css", "swagger-ui-bundle.js", "start.js"]) -> Response:
    # The package is only the place of these files: its own page has inline scripts.
    content = (
        _START.encode()
        if name == "start.js"
        else resources.files("fastapi_offline").joinpath("static", name).read_bytes()
    )
    headers = {"Cache-Control": "public, max-age=86400"}
    return Response(content, media_type=_TYPES[name.rsplit(".", 1)[1]], headers=headers)
