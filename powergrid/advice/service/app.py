"""The HTTP interface of an advisor; it computes nothing itself.

FastAPI is imported only here, and by whoever imports this.
"""

from __future__ import annotations

import hmac
import importlib.resources
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import powergrid
from powergrid.advice.advisor import Advisor
from powergrid.advice.service.schema import (
    AdviceData,
    DoneData,
    ErrorData,
    HealthData,
    LogData,
    ReadingsData,
    SpecData,
)
from powergrid.advice.shadow import ShadowLog, summarise
from powergrid.advice.spec import describe
from powergrid.errors import PowerGridError, Problem

try:
    from fastapi import FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from starlette.exceptions import HTTPException
except ImportError as error:
    remedy = "pip install 'powergrid-dss[serve]'"
    raise PowerGridError(f"to serve, install FastAPI and uvicorn: {remedy}") from error

#: Most that a request may hold [bytes].
MOST_BYTES = 16 * 1024 * 1024
#: Deepest that JSON may be nested.
_DEEPEST = 20
#: Codes of errors by their HTTP status.
_CODES = {400: "bad-request", 401: "unauthorized", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
_OPEN = ("/health", "/docs", "/openapi.json")


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        problem: What is wrong with it.
    """

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(str(problem))
        self.status, self.problem = status, problem


def build_app(advisor: Advisor, token: str, log: ShadowLog | None = None) -> FastAPI:
    """Return the interface of an advisor as an ASGI application.

    ``GET /health`` answers anybody; ``GET /spec``, ``POST /advise``, ``GET /log`` and ``POST /log`` ask for the header
    ``Authorization: Bearer TOKEN``. An error is ``{"error": {"code", "where", "text", "remedy"}}``. One request is
    answered after the other, as there is one grid.

    Args:
        advisor: Who advises.
        token: What a caller has to know.
        log: Where advice is kept beside what was done; in memory if None.
    """
    app = FastAPI(
        title="PowerGrid advice", version=powergrid.__version__, docs_url=None, redoc_url=None,
        description="Readings of a grid that runs in, setpoints within every limit out.",
    )  # fmt: skip
    kept = ShadowLog(advisor) if log is None else log
    _add_errors(app)
    _add_guard(app, token)
    _add_advice(app, advisor, kept)
    _add_log(app, kept)

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        return _render_docs(app.openapi())

    return app


def _add_advice(app: FastAPI, advisor: Advisor, log: ShadowLog) -> None:
    """Add what says who advises, what is read, and advice."""
    count = 0

    @app.get("/health", responses={200: {"model": HealthData}}, summary="Whether it answers")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok", "version": powergrid.__version__, "advice_given": count})

    @app.get("/spec", responses=_told(SpecData), summary="Names, units and ranges of readings and setpoints")
    async def spec() -> JSONResponse:
        return JSONResponse(_plain(describe(advisor)))

    @app.post("/advise", responses=_told(AdviceData, 400, 413), openapi_extra=_body(ReadingsData),
              summary="Setpoints of the step that begins with these readings")  # fmt: skip
    async def advise(request: Request) -> JSONResponse:
        nonlocal count
        readings = await _read_json(request)
        advice = log.advise(readings)
        count += 1
        return JSONResponse(_plain(advice.as_json()))


def _add_log(app: FastAPI, log: ShadowLog) -> None:
    """Add the shadow log."""

    @app.get(
        "/log", responses=_told(LogData, 422), summary="Advice beside what was done, the last entries, and its sums"
    )
    async def read(limit: int = Query(100, ge=0, le=10_000)) -> JSONResponse:
        entries = log.entries[-limit:] if limit else []
        rows = summarise(log.read()).to_dict("records")
        return JSONResponse(_plain({"entries": entries, "summary": rows}))

    @app.post("/log", responses=_told(DoneData, 400, 413), openapi_extra=_body(ReadingsData),
              summary="What was done in the step that the last advice was for")  # fmt: skip
    async def note(request: Request) -> JSONResponse:
        sound = log.note(await _read_json(request))
        return JSONResponse({"taken": len(sound.values), "problems": [asdict(each) for each in sound.problems]})


def _add_guard(app: FastAPI, token: str) -> None:
    """Let nobody in who does not know the token."""
    expected = f"Bearer {token}".encode()

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Any:
        given = request.headers.get("authorization", "").encode("utf-8", "replace")
        # Whoever counts the time that it takes learns nothing of the token.
        if request.url.path not in _OPEN and not hmac.compare_digest(given, expected):
            problem = Problem("unauthorized", "Authorization", "no token, or a wrong one", "send 'Bearer TOKEN'")
            return _answer(401, problem, {"WWW-Authenticate": "Bearer"})
        return await call_next(request)


def _add_errors(app: FastAPI) -> None:
    """Answer every error in one form."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        return _answer(error.status, error.problem)

    @app.exception_handler(HTTPException)
    async def told(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "http-error")
        return _answer(error.status_code, Problem(code, request.url.path, str(error.detail), "see /docs"))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return _answer(422, Problem("invalid-parameter", where, str(first["msg"]), "see /docs"))

    @app.exception_handler(PowerGridError)
    async def failed(request: Request, error: PowerGridError) -> JSONResponse:
        return _answer(500, Problem("failed", request.url.path, str(error)))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return _answer(500, Problem("internal", request.url.path, f"{type(error).__name__}; the log of it says more"))


def _answer(status: int, problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": asdict(problem)}, status, headers)


async def _read_json(request: Request) -> Any:
    """Return the JSON that a request holds.

    Raises:
        RequestError: it is too large, none, or nested too deeply.
    """
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise RequestError(413, Problem("too-large", "body", f"more than {MOST_BYTES} bytes"))
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        remedy = 'send {"time": "2026-07-01T14:00", "readings": {"675.1.v_pu": 0.98}}'
        raise RequestError(400, Problem("not-json", "body", f"is no JSON: {error}"[:300], remedy)) from None
    if _depth(found) > _DEEPEST:
        raise RequestError(400, Problem("too-deep", "body", f"nested more than {_DEEPEST} deep"))
    return found


def _depth(value: Any, level: int = 0) -> int:
    """Return how deep JSON is nested, as far as it matters."""
    if level > _DEEPEST or not isinstance(value, dict | list):
        return level
    inner = value.values() if isinstance(value, dict) else value
    return max((_depth(each, level + 1) for each in inner), default=level)


def _plain(value: Any) -> Any:
    """Return data with null for the numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _told(model: Any, *errors: int) -> dict[int | str, dict[str, Any]]:
    """Return what an endpoint answers, for its documentation."""
    return {200: {"model": model}, **{status: {"model": ErrorData} for status in sorted((401, *errors, 500))}}


def _body(model: Any) -> dict[str, Any]:
    """Return what a request holds, for its documentation; anything is taken, and what is wrong with it is answered."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _render_docs(schema: Mapping[str, Any]) -> str:
    """Return a page that shows an OpenAPI schema; it loads nothing from anywhere."""
    from jinja2 import Environment

    template = (importlib.resources.files(__package__) / "docs.html.jinja").read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(api=schema)
