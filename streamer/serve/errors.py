"""How errors leave the server: `{"error": "one sentence that names the fix"}` and a status."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from engines.errors import VisavisError
from streamer.serve.store import StoreError


def add_error_answers(app: FastAPI) -> None:
    """Let `app` answer what its routes raise."""
    # Starlette's, not FastAPI's: it is also what the router raises, for a path that is not there
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(VisavisError)(_refused)
    app.exception_handler(StoreError)(_not_stored)


async def _http_error(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _invalid(_: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return JSONResponse({"error": f"{where or 'the request'}: {first['msg']}"}, 422)


async def _refused(_: Request, error: VisavisError) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _not_stored(_: Request, error: StoreError) -> Response:
    return JSONResponse({"error": str(error)}, 409)
