"""`minillava serve`: a trained LLaVA behind an OpenAI-compatible address, and a chat page.

minillava serve data_samples/weights/llava --port 8000
"""

import socket
import sys
from contextlib import suppress
from pathlib import Path

from minillava import scales
from minillava.asking.request import LOOPBACK
from minillava.chat import Chat, device_and_dtype
from minillava.commands import add_device
from minillava.errors import UserError

SETTINGS = dict(log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5)
SETTINGS |= dict(limit_concurrency=1024, timeout_keep_alive=60)  # connections; s, longer than clients keep them


def arguments(parser) -> None:
    """Declare the verb's arguments."""
    add = parser.add_argument
    what = "a trained LLaVA: a folder, a hub id or id@revision (default: the one that ships)"
    add("model", nargs="?", default=str(scales.WEIGHTS / "llava"), help=what)
    add("--port", type=int, default=8000, help="(default: 8000; 0 takes a free port)")
    add("--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine only)")
    add("--most", type=int, default=64, help="answers that are written side by side (default: 64)")
    add("--template", help="the conversation's format, as in `chat` (default: the weights')")
    add_device(add)
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: bfloat16 on a GPU, else float32)")


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a port in use is known before the weights are loaded. Raises UserError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port} ({error}); choose another with --port") from error


def run(options) -> None:
    """Serve a model until Ctrl-C."""
    try:
        import uvicorn

        from minillava.serving.app import HERE, Service, app
    except ImportError as error:
        raise UserError(f"the server is not installed ({error}); pip install 'minillava[serve]'") from error
    if options.most < 1:
        raise UserError("--most: at least 1")
    name = Path(options.model).resolve().name if Path(options.model).exists() else options.model
    with listen(options.host, options.port) as at:
        chat = Chat(options.model, options.template, *device_and_dtype(options.dtype, options.device))
        service = Service(chat, name, options.most)
        made = app(service, HERE if options.host in LOOPBACK else ())
        server = uvicorn.Server(uvicorn.Config(made, **SETTINGS))
        stop = server.handle_exit

        def handle_exit(*signal):  # answers end first: uvicorn would wait for them, then cut them off with a traceback
            service.writer.end()
            stop(*signal)

        server.handle_exit = handle_exit
        if options.host not in LOOPBACK:
            print(f"warning: everyone who can reach {options.host} can use this", file=sys.stderr)
        shown = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{shown}:{at.getsockname()[1]}"
        print(f"{name} is at {address} (Ctrl-C stops it): a page to chat, and for programs", flush=True)
        print(f"  OpenAI(base_url='{address}/v1', api_key='none')", flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[at])
    print("Stopped.")
