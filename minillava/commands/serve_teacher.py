"""`minillava serve-teacher`: the offline teacher behind an OpenAI-compatible API on this machine.

minillava serve-teacher --port 8000
"""

import sys
from contextlib import suppress

from minillava.asking.request import LOOPBACK
from minillava.asking.server import serve
from minillava.datagen.teachers import OFFLINE_MODEL
from minillava.standins.teacher import offline_reply


def arguments(parser) -> None:
    parser.add_argument("--port", type=int, default=8000, help="(default: 8000; 0 takes a free port)")
    parser.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine only)")


def run(options) -> None:
    """Serve the offline teacher until Ctrl-C."""
    server = serve(offline_reply, options.port, options.host, OFFLINE_MODEL)
    if options.host not in LOOPBACK:
        print(f"warning: everyone who can reach {options.host} can use this, without limits", file=sys.stderr)
    address = f"http://{options.host}:{server.server_port}/v1"
    use = f"minillava generate --teacher openai --base-url {address} --model {OFFLINE_MODEL} --yes"
    print(f"The offline teacher is at {address} (Ctrl-C stops it). In another terminal:", flush=True)
    print(f"  {use} --source ... --out ...", flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    print("Stopped.")
