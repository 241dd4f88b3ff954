"""`StrictRoute`: a route whose request is read once, in memory, without what has two meanings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from starlette.formparsers import MultiPartParser

T = TypeVar("T", int, float)

MARKS = 2000  # of JSON's structure; an offer has about sixty
DIGITS = 32
FILES, FIELDS, FIELD_BYTES = 1, 4, 4096

# a picture never lies on the disk: the guard says how long it may be, and so how much memory it takes
MultiPartParser.spool_max_size = sys.maxsize


class StrictRequest(Request):
    """A request whose JSON says everything once, and whose form holds one file."""

    async def json(self) -> Any:
        """The body as JSON in UTF-8 (RFC 8259); raises HTTPException 400."""
        body = await self.body()
        # what is made of it in one turn of the event loop would keep calls from theirs, most of all the collection
        # of so many objects; those in texts count too, and an SDP has next to none
        if sum(body.count(mark) for mark in (b"{", b"[", b",", b'"')) > MARKS:
            raise HTTPException(400, "the JSON holds far more than this address takes; send its fields alone")
        try:
            return json.loads(
                body.decode("utf-8"),
                object_pairs_hook=_once,
                parse_int=_short(int),
                parse_float=_short(float),
            )
        except RecursionError as error:
            raise HTTPException(400, "the JSON is nested too deeply; send it flat") from error
        except ValueError as error:
            # the decoder's own sentences are about the text and hold none of it
            told = f" ({error.msg}, character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
            raise HTTPException(
                400, f"the request cannot be read as JSON{told}; send JSON in UTF-8"
            ) from error

    def form(
        self,
        *,
        max_files: int | float = FILES,
        max_fields: int | float = FIELDS,
        max_part_size: int = FIELD_BYTES,
    ) -> Any:
        """The body as a form of one file and a few short fields, whatever is asked for; raises HTTPException 400."""
        return super().form(max_files=FILES, max_fields=FIELDS, max_part_size=FIELD_BYTES)


class StrictRoute(APIRoute):
    """Reads its requests as `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, given a `StrictRequest`."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return handle_strictly


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise HTTPException(400, "the JSON says one thing twice; send each name once")
    return found


def _short(number: Callable[[str], T]) -> Callable[[str], T]:
    """`number` of texts that are not so long that reading them takes time."""

    def read(text: str) -> T:
        if len(text) > DIGITS:
            raise HTTPException(400, f"a number in the JSON has {len(text)} characters; {DIGITS} are enough")
        return number(text)

    return read
