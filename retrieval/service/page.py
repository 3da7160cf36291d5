"""The page for people in a browser, and its files."""

from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from retrieval.service.problems import Problem

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).parent / "web"
_FILES = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}


@router.get("/")
async def index() -> Response:
    """The page itself."""
    return _file("index.html", "text/html")


@router.get("/web/{name}")
async def file(request: Request, name: str) -> Response:
    """What the page loads."""
    if name not in _FILES:
        raise Problem(404, "no such file")
    return _file(name, _FILES[name])


def _file(name: str, kind: str) -> Response:
    return Response((_FOLDER / name).read_bytes(), media_type=f"{kind}; charset=utf-8")
