"""How errors leave the server: `{"error": "one sentence that names the fix"}` and a status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from engines.errors import VisavisError
from streamer.kept import KeptError
from streamer.serve.headers import HEADERS
from streamer.serve.store import StoreError

BARE = {  # what the router says in no more than the status' own words
    404: "this server has nothing at this address; load the page again, or see /openapi.json",
    405: "this server is not asked like that; load the page again, or see /openapi.json",
}


SCHEMA = {
    "title": "Error",
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "One sentence that names the fix."},
        "what": {"enum": ["avatar", "call"], "description": "With 404: what there is no longer."},
    },
    "required": ["error"],
    "additionalProperties": False,
}


class NoLonger(HTTPException):
    """404 that says what there is no longer: see `no_longer`."""

    what: str


def no_longer(what: Literal["avatar", "call"], sentence: str) -> NoLonger:
    """404 for a name that a page may have from before the server was started again."""
    error = NoLonger(404, sentence)
    error.what = what
    return error


def documented(*statuses: int) -> dict[int | str, dict[str, object]]:
    """For a route: that it may refuse with these `statuses`, beside those that every address has."""
    # not FastAPI's `model`, which documents an error in the kind of the route's own answer
    said = {"application/json": {"schema": SCHEMA}}
    return {
        s: {"description": HTTPStatus(s).phrase, "content": said} for s in (400, 401, 403, 413, *statuses)
    }


def add_error_answers(app: FastAPI) -> None:
    """Let `app` answer what its routes raise."""
    # Starlette's, not FastAPI's: it is also what the router raises, for a path that is not there
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(VisavisError)(_refused)
    app.exception_handler(StoreError)(_not_stored)
    app.exception_handler(KeptError)(_not_stored)
    app.exception_handler(Exception)(_unforeseen)


def answer_of(
    sentence: str, status: int, headers: Mapping[str, str] | None = None, what: str | None = None
) -> Response:
    """The answer that says `sentence`, whatever text of a request is in it."""
    # half of a surrogate pair is legal in JSON, but not in UTF-8
    line = " ".join(sentence.encode("utf-8", "backslashreplace").decode("utf-8").split())
    return JSONResponse({"error": line} | ({"what": what} if what else {}), status, headers)


async def _http_error(_: Request, error: HTTPException) -> Response:
    bare = error.detail == HTTPStatus(error.status_code).phrase
    sentence = BARE.get(error.status_code, error.detail) if bare else error.detail
    what = error.what if isinstance(error, NoLonger) else None
    return answer_of(str(sentence), error.status_code, error.headers, what)


async def _invalid(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return answer_of(f"{where or 'the request'}: {first['msg']}", 422)


async def _refused(_: Request, error: VisavisError) -> Response:
    return answer_of(str(error), 400)


async def _not_stored(_: Request, error: StoreError | KeptError) -> Response:
    return answer_of(str(error), 409)


async def _unforeseen(_: Request, error: Exception) -> Response:
    # answered outside the guard, and then raised again for the log
    return answer_of("the server failed at this; its log says where, please report it", 500, HEADERS)
