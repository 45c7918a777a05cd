"""How much 64 clients at once get from `minillava serve`, beside the same requests one by one.

Each request shows a picture of its own and asks for a description. The client is `openai`'s; server and client are two
processes on this machine, and the client's work is part of the time. In turn, and answers must be equal. The goal is 5
times the throughput.

ms per request: of each round, by the clock and of the server's processor. ratio: of the two, the median over rounds.
memory: MB that the server held at most, at the start and at the end.

    python benchmarks/serve.py [--quick] [--model FOLDER] [--json FILE]
"""

import argparse
import asyncio
import base64
import io
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import environment
import openai

from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave their core to others
GOAL = 5
QUESTION = "Describe this picture in detail."


def requests(count: int, model: str) -> list[dict]:
    """Requests about pictures that all differ."""
    found = []
    for scene in scenes("dev", count):
        held = io.BytesIO()
        draw(scene, 96).save(held, "png")
        url = f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
        content = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}]
        found.append({"model": model, "messages": [{"role": "user", "content": content}]})
    return found


async def answers(client: openai.AsyncOpenAI, bodies: list[dict], clients: int) -> list[str]:
    """The answer to each request. clients: how many ask at the same time, each one request after another."""
    said, left = [""] * len(bodies), iter(range(len(bodies)))

    async def one():
        for n in left:
            said[n] = (await client.chat.completions.create(**bodies[n])).choices[0].message.content

    await asyncio.gather(*(one() for _ in range(clients)))
    return said


def processor_seconds(process: int) -> float:
    """CPU seconds of another process, so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def most_memory(process: int) -> float:
    """MB that another process held at most."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1e3


async def measure(url: str, process: int, options) -> dict:
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
    (model,) = [one.id async for one in client.models.list()]
    bodies = requests(options.requests, model)
    ways = {"one by one": (bodies[: options.requests // 8], 1), "at once": (bodies, options.clients)}
    for some, clients in ways.values():
        await answers(client, some[: options.clients], clients)  # the first connections are not measured
    memory, times, said = {"start": round(most_memory(process))}, {name: [] for name in ways}, {}
    for _ in range(options.rounds):
        for name, (some, clients) in ways.items():
            begun = time.perf_counter(), processor_seconds(process)
            said[name] = await answers(client, some, clients)
            spent = time.perf_counter() - begun[0], processor_seconds(process) - begun[1]
            times[name].append([1000 * one / len(some) for one in spent])
    memory["end"] = round(most_memory(process))
    alone, together = times.values()
    ratios = [[a[i] / b[i] for a, b in zip(alone, together, strict=True)] for i in (0, 1)]
    return {
        "model": model,
        "same answers": [sum(a == b for a, b in zip(*said.values())), len(said["one by one"])],
        "letters": round(statistics.mean(map(len, said["at once"]))),
        "ms per request": {name: [[round(one, 2) for one in row] for row in rows] for name, rows in times.items()},
        "ratio": [round(statistics.median(some), 2) for some in ratios],
        "memory": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=512, help="at once; one by one an eighth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", help="(default: the one that ships)")
    parser.add_argument("--quick", action="store_true", help="128 requests, one round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.requests, options.rounds = 128, 1
    command = [sys.executable, "-m", "minillava", "serve", *([options.model] if options.model else []), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split(" is at ")[1].split()[0] + "/v1"
            result = asyncio.run(measure(url, server.pid, options))
        finally:
            server.terminate()
    kept = {"machine": environment.describe_machine() | {"openai": openai.__version__}, "quick": options.quick}
    kept |= dict(clients=options.clients, requests=options.requests, rounds=options.rounds, goal=GOAL)
    for name, value in result.items():
        print(f"{name}: {value}")
    print(f"goal: {GOAL} times as many requests per second")
    environment.write_results(options.json, kept | result)


if __name__ == "__main__":
    main()
