"""The addresses of the server: an OpenAI-compatible API, and the chat page with what it needs.

    GET  /                      the page
    GET  /blank.png             the blank picture of the controls (judging/answers.py)
    GET  /v1/models             the one model
    POST /v1/chat/completions   an answer, whole or as a stream of events
    POST /where                 where it looked: a request like the one above, and the answer as its last message

Notable
- Memory is bounded: by the bytes of a request, by how many large ones are read and pictures decoded at the same time, by
  their pixels (data/images.py), and by how many answers wait and are written (rows.py).
- Only this server's own page may ask from a browser. On this machine's own address `Host` must name it too, or a page
  elsewhere could pretend to be this one.

Try it: `uvicorn.run(app(Service(Chat(weights), "llava", 64)))`.
"""

import asyncio
import base64
import copy
import io
import json
import re
import time
import uuid
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from importlib import resources

import anyio
import torch
from PIL import Image
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from minillava.chat import Chat
from minillava.data.images import ImageError, Preparation, open_picture, pixels
from minillava.data.records import IMAGE_TOKEN
from minillava.data.samples import prompt_ids
from minillava.figures.model import looks
from minillava.judging.answers import blank_picture
from minillava.model import SpliceError
from minillava.model.generate import Stop
from minillava.serving.reading import Asked, Refused, read_json, read_request
from minillava.serving.rows import Busy, Row, Writer

MAX_BODY, SMALL = 32 << 20, 256 << 10  # bytes of a request, and of one that is read at once
LARGE = 4  # larger requests that are read at the same time; the others wait, and their clients with them
MAX_LETTERS = 100  # of a conversation, for each token of the context
MAX_SECONDS = 60  # for a request to arrive
DECODED = 2  # pictures at the same time
UNFINISHED = {  # how an answer ended that was not written to its end: (what the client is told, status)
    "error": ("the answer failed; the server's terminal says why", 500),
    "stopped": ("the server was stopped", 503),
}
ENLARGED = 4  # times the size that the vision tower takes, where a picture is shown as it sees it
HERE = ("localhost", "127.0.0.1", "[::1]")  # this machine, as `Host` names it
PAGE = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; style-src "
    "'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class Service:
    """One model and the requests to it. name: what the API calls it. most: answers that are written side by side."""

    def __init__(self, chat: Chat, name: str, most: int):
        self.chat, self.name, self.created, self.writer = chat, name, int(time.time()), Writer(chat.model, most)
        self.ends = Stop([chat.template.stop], chat.tokenizer, chat.model.config.language.ends)
        blank = blank_picture(chat.preparation.size)
        chat.look(blank)
        self.patches = chat.features  # of the blank picture: as many as of any other
        self.blank, self.page = png(blank), (resources.files("minillava.serving") / "page.html").read_bytes()
        self.context = chat.model.config.language.max_position
        self.large, self.decoding, self.looking = map(asyncio.Semaphore, (LARGE, DECODED, 1))

    async def read(self, request: Request, shown: bool = False) -> tuple:
        """(what is asked, its picture as pixels (1, 3, S, S) or None, the same as a PNG if `shown`). Raises Refused."""
        said = request.headers.get("content-length", "")
        async with nullcontext() if said.isdecimal() and int(said) <= SMALL else self.large:
            data, size = bytearray(), 0
            try:
                with anyio.fail_after(MAX_SECONDS):
                    async for chunk in request.stream():  # to its end in any case, or the client hears nothing of it
                        size += len(chunk)
                        if size <= MAX_BODY:
                            data += chunk
            except TimeoutError:
                raise Refused(f"the request did not arrive within {MAX_SECONDS} seconds", status=408) from None
            if size > MAX_BODY:
                raise Refused(f"more than {MAX_BODY:,} bytes; make the picture smaller", status=413)
            async with self.decoding:
                return await run_in_threadpool(self.parse, data, shown)

    def parse(self, data: bytearray, shown: bool) -> tuple:
        """See `read`."""
        asked = read_request(read_json(data), self.name)
        if sum(len(question) + len(answer or "") for question, answer in asked.turns) > MAX_LETTERS * self.context:
            raise self.too_long()  # before it takes long to find its tokens
        if asked.picture is None:
            return asked, None, None
        try:
            picture, how = open_picture(asked.picture), self.chat.preparation
            asked = replace(asked, picture=None)  # large; what is kept while the answer waits is small
            return asked, pixels([picture], how), png(as_seen(picture, how)) if shown else None
        except ImageError as error:
            raise Refused(f"messages[0]: {error}", "messages[0]", code="invalid_image") from error

    def too_long(self) -> Refused:
        what = f"the conversation does not fit into the {self.context} tokens that the model reads; begin a new one"
        return Refused(what, "messages", code="context_length_exceeded")

    def row(self, asked: Asked, view: torch.Tensor | None, tell) -> Row:
        """The answer to be written. Raises Refused for a conversation that the context has no room for."""
        chat, (*before, (question, answer)) = self.chat, asked.turns
        if answer is not None:
            raise Refused("the last message must be the user's", "messages")
        ids = prompt_ids(question, chat.template, chat.tokenizer, before)
        length = len(ids) + (0 if view is None else len(self.patches) - 1)
        if length >= self.context:
            raise self.too_long()
        room = min(asked.max_new_tokens, self.context - length)
        return Row(ids, view, length, room, self.ends, tell, asked)

    async def complete(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        asked, view, _ = await self.read(request)
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue()

        def tell(*piece):
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        row = self.row(asked, view, tell)
        try:
            self.writer.add(row)
        except Busy as error:
            raise Refused(str(error), status=503) from error
        if asked.streams:
            events, leave = self.events(row, pieces, asked.counts), BackgroundTask(row.leave)
            return StreamingResponse(events, media_type="text/event-stream", background=leave)
        tasks = asyncio.ensure_future(pieces.get()), asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                return Response(status_code=400)  # nobody reads it
            text, finished = tasks[0].result()
        finally:
            await row.leave()
            for task in tasks:
                task.cancel()
        if finished in UNFINISHED:
            why, status = UNFINISHED[finished]
            raise Refused(why, status=status)
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": finished, "logprobs": None}
        return JSONResponse(self.head("chat.completion") | {"choices": [choice], "usage": row.usage()})

    async def events(self, row: Row, pieces: asyncio.Queue, counts: bool):
        """The answer as events of a stream."""
        head, finished = self.head("chat.completion.chunk"), None

        def event(delta, finished=None):
            choice = {"index": 0, "delta": delta, "finish_reason": finished, "logprobs": None}
            return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"

        yield event({"role": "assistant", "content": ""})
        while not finished:
            text, finished = await pieces.get()
            if finished in UNFINISHED:
                why, status = UNFINISHED[finished]
                yield f"data: {json.dumps(Refused(why, status=status).body())}\n\n"
                return
            if text:
                yield event({"content": text})
        yield event({}, finished)
        if counts:
            yield f"data: {json.dumps(head | {'choices': [], 'usage': row.usage()})}\n\n"
        yield "data: [DONE]\n\n"

    async def where(self, request: Request) -> Response:
        """POST /where: the attention over the picture for each token of the last answer."""
        asked, view, seen = await self.read(request, shown=True)
        if view is None or not (asked.turns[-1][1] or "").strip():
            raise Refused("expected a picture in the first message, and the answer as the last one", "messages")
        async with self.looking:
            found = await run_in_threadpool(self.look, asked.turns, view)
        tokens = [{"token": one.token, "share": one.share, "map": one.map.flatten().tolist()} for one in found]
        return JSONResponse({"picture": data_address(seen), "side": len(found[0].map), "tokens": tokens})

    def look(self, turns: list, view: torch.Tensor) -> list:
        """See `where`."""
        chat, (*before, (question, answer)) = copy.copy(self.chat), turns
        weight = chat.model.vision_tower.pre_layrnorm.weight
        chat.features = chat.model.features(view.to(weight.device, weight.dtype))[0]
        try:
            return looks(chat, question if before else question.removeprefix(f"{IMAGE_TOKEN}\n"), answer, before)
        except SpliceError as error:
            raise self.too_long() from error

    def head(self, kind: str) -> dict:
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": self.name}

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        one = {"id": self.name, "object": "model", "created": self.created, "owned_by": "minillava"}
        return JSONResponse({"object": "list", "data": [one]})


async def until_gone(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def png(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    held = io.BytesIO()
    image.save(held, "png")
    return held.getvalue()


def data_address(data: bytes) -> str:
    """The bytes of a PNG as an address."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def as_seen(picture: Image.Image, how: Preparation) -> Image.Image:
    """The part of a picture that the vision tower sees, `ENLARGED` times as large as it takes it."""
    larger = replace(how, size=ENLARGED * how.size, edge=ENLARGED * (how.edge or how.size))
    colours = pixels([picture], larger)[0].permute(1, 2, 0) * torch.tensor(how.std) + torch.tensor(how.mean)
    return Image.fromarray((colours / how.rescale).round().clip(0, 255).to(torch.uint8).numpy())


async def refuse(request: Request, error: Exception) -> Response:
    """Any error as an answer in the API's form."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    if isinstance(error, HTTPException):
        error = Refused(f"{request.method} {request.url.path[:200]}: {error.detail}", status=error.status_code)
    elif not isinstance(error, Refused):
        error = Refused("a bug; the server's terminal says where", status=500)
    return JSONResponse(error.body(), error.status, {"Retry-After": "1"} if error.status == 503 else None)


def guarded(inner, names: tuple[str, ...]):
    """Let through what names this server (`Host`, unless `names` is empty) and comes from no other page (`Origin`)."""

    async def run(scope, receive, send):
        headers, wrong = Headers(scope=scope) if scope["type"] == "http" else {}, None
        host, origin = headers.get("host", ""), headers.get("origin")
        if scope["type"] == "http" and names and re.sub(r":\d+$", "", host.lower()) not in names:
            wrong = f"this server is at {', '.join(names)}, not at {host[:100]!r}; --host lets others in"
        elif origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            wrong = f"pages of {origin[:100]!r} may not ask here"
        await (JSONResponse(Refused(wrong).body(), 403) if wrong else inner)(scope, receive, send)

    return run


def app(service: Service, names: tuple[str, ...] = HERE):
    """The ASGI application. names: as in `guarded`."""

    @asynccontextmanager
    async def running(_):
        service.writer.start()
        yield
        service.writer.end()
        await run_in_threadpool(service.writer.join)

    async def page(request):
        return Response(service.page, media_type="text/html", headers=PAGE)

    async def blank(request):
        return Response(service.blank, media_type="image/png")

    routes = [
        Route("/", page),
        Route("/blank.png", blank),
        Route("/v1/models", service.models),
        Route("/v1/chat/completions", service.complete, methods=["POST"]),
        Route("/where", service.where, methods=["POST"]),
    ]
    kinds = (Refused, HTTPException, ClientDisconnect, Exception)
    inner = Starlette(routes=routes, lifespan=running, exception_handlers=dict.fromkeys(kinds, refuse))
    return guarded(inner, names)
