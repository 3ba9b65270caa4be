"""Errors as RFC 9457 problem details: one shape for all, with a detail a person can act on."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cloud.api.models import Problem
from cloud.timeseries.port import Misconfigured, Retry
from cloud.workorders.life import Incomplete, NotAllowed, Stale
from rules.declared import nearest
from wire.counted import Counted


class UnknownId(LookupError):  # noqa: N818 - named by what the caller should mend
    """The path names something that does not exist."""


class BadQuery(ValueError):  # noqa: N818 - named by what the caller should mend
    """A query parameter or header that means nothing."""


def problem(status: int, detail: str, title: str = "", allowed: tuple[str, ...] | None = None) -> JSONResponse:
    shown = Problem(
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        allowed=None if allowed is None else list(allowed),
    )
    content = shown.model_dump(exclude_none=True)
    return JSONResponse(content, status, media_type="application/problem+json")


def known_query(request: Request) -> None:
    """Refuse a query parameter that its route does not have: to ignore it would answer another question."""
    route = request.scope["route"]
    known = [parameter.alias for parameter in route.dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise BadQuery(f"query.{name}: no such parameter{nearest(name, known)}")


def add_problems(app: FastAPI, counted: Counted) -> None:
    """Answer every error that the handlers raise as a problem, each kind counted under its own name."""

    def not_allowed(_request: Request, error: Exception) -> JSONResponse:
        counted.add("api_not_allowed_requests_total")
        title = "Changed meanwhile" if isinstance(error, Stale) else "Not allowed now"
        return problem(409, str(error), title, error.allowed if isinstance(error, NotAllowed) else None)

    def unknown(_request: Request, error: Exception) -> JSONResponse:
        counted.add("api_unknown_id_requests_total")
        return problem(404, str(error.args[0]) if error.args else "")

    def incomplete(_request: Request, error: Exception) -> JSONResponse:
        counted.add("api_incomplete_requests_total")
        return problem(422, str(error))

    def bad_query(_request: Request, error: Exception) -> JSONResponse:
        counted.add("api_bad_query_requests_total")
        return problem(422, str(error))

    def unreadable(_request: Request, error: Exception) -> JSONResponse:
        counted.add("api_malformed_requests_total")
        if not isinstance(error, RequestValidationError):
            return problem(422, str(error))
        told = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return problem(422, "; ".join(told))

    def http(_request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, HTTPException):
            return problem(500, "")
        counted.add(f"api_status_{error.status_code}_requests_total")
        return problem(error.status_code, str(error.detail))

    def later(_request: Request, error: Exception) -> JSONResponse:
        counted.add("api_unavailable_samples_requests_total")
        return problem(503, f"the time-series store does not answer: {error}")

    app.add_exception_handler(NotAllowed, not_allowed)
    app.add_exception_handler(UnknownId, unknown)
    app.add_exception_handler(Incomplete, incomplete)
    app.add_exception_handler(BadQuery, bad_query)
    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Retry, later)
    app.add_exception_handler(Misconfigured, later)
