"""How close to the ideal time many requests come: 2,000 requests, 50 ms of latency, 64 at a time.

The ideal is ceil(requests / concurrency) x latency, the time of a client that costs nothing itself. The goal is 1.25
times that, with journal and fsync. Beside it is what one would otherwise write: `openai`'s `chat.completions.create`
under a semaphore, which stores nothing; same requests, same server, in turn. And that client's `post` alone, with
nothing sent: one request after another, the answer already there.

    python benchmarks/asking.py [--quick] [--json FILE]
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import environment
import httpx2  # comes with openai
import openai

from minillava.asking import Journal, ask_all, chat_request
from minillava.asking.client import Client

GOAL = 1.25


def answer_all(port: int, latency: float, ready) -> None:
    """A server that costs almost nothing: it reads a request, waits, sends an answer. Its port goes to `ready`."""
    text = "Question:\nWhat is on the left?\n===\nAnswer:\nA red car is on the left."
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [message], "usage": usage}
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)

    async def talk(reader, writer):
        try:
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(asked.split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(latency)
                writer.write(head + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main():
        server = await asyncio.start_server(talk, "127.0.0.1", port, backlog=512)
        ready.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


def requests(count: int) -> list[dict]:
    """Requests like those of section 3: a system message, three few-shot pairs, five captions; about 5 KB each."""
    text = "a red car on the left, a dog on the right. " * 15
    shots = [{"role": role, "content": text} for role in ("user", "assistant") * 3]
    system = {"role": "system", "content": "You write questions and answers about a picture. " * 25}
    return [
        chat_request("m", [system, *shots, {"role": "user", "content": f"Scene {n}. " * 30}], 512) for n in range(count)
    ]


def ours(bodies: list[dict], url: str, concurrency: int) -> None:
    """minillava, with journal and fsync."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
        outcome = ask_all(bodies, Client("m", url), journal, concurrency=concurrency, progress=False)
        assert len(outcome.replies) == len(bodies)


def plain(bodies: list[dict], url: str, concurrency: int) -> None:
    """openai's own create; nothing is stored."""

    async def main():
        client, free = openai.AsyncOpenAI(api_key="none", base_url=url), asyncio.Semaphore(concurrency)

        async def one(body):
            async with free:
                return (await client.chat.completions.create(**body)).choices[0].message.content

        assert all(await asyncio.gather(*map(one, bodies)))
        await client.close()

    asyncio.run(main())


def client_alone(bodies: list[dict], url: str, concurrency: int) -> None:
    """openai's post; nothing is sent."""
    answer = json.dumps({"choices": [{"message": {"content": "A red car is on the left."}, "finish_reason": "stop"}]})

    async def main():
        reply = dict(status_code=200, text=answer, headers={"content-type": "application/json"})
        transport = httpx2.MockTransport(lambda request: httpx2.Response(**reply))
        http = openai.DefaultAsyncHttpxClient(transport=transport)
        client = openai.AsyncOpenAI(api_key="none", base_url=url, http_client=http)
        for body in bodies:
            assert await client.post("/chat/completions", body=body, cast_to=object)
        await client.close()

    asyncio.run(main())


def seconds(work, *arguments) -> tuple[float, float]:
    """(wall, CPU) seconds of a call."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work(*arguments)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="500 requests, 3 rounds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.requests, options.rounds = 500, 3
    ready = multiprocessing.Value("i", 0)
    server = multiprocessing.Process(target=answer_all, args=(0, options.latency, ready), daemon=True)
    server.start()
    while not ready.value:
        time.sleep(0.01)
    url, bodies = f"http://127.0.0.1:{ready.value}/v1", requests(options.requests)
    ideal = math.ceil(options.requests / options.concurrency) * options.latency
    ways = (ours, plain, client_alone)
    for work in ways:
        work(bodies[:64], url, options.concurrency)  # imports and the first connection are not measured
    rounds = [[seconds(work, bodies, url, options.concurrency) for work in ways] for _ in range(options.rounds)]
    server.terminate()
    result = {"machine": environment.describe_machine() | {"openai": openai.__version__}, "quick": options.quick}
    result |= dict(requests=options.requests, latency_s=options.latency, concurrency=options.concurrency)
    result |= dict(rounds=options.rounds, ideal_s=ideal, goal=GOAL)
    latency = f"{options.latency * 1000:.0f} ms"
    print(f"{options.requests} requests, {latency}, {options.concurrency} at a time; ideal {ideal:.2f} s")
    for work, times in zip(ways, zip(*rounds)):
        walls, cpus = zip(*times)
        median, best = statistics.median(walls), min(walls)
        figures = dict(wall_s=[round(w, 3) for w in walls], cpu_s=[round(c, 3) for c in cpus])
        figures |= dict(best_ratio=round(best / ideal, 3), median_ratio=round(median / ideal, 3))
        result[work.__name__] = figures
        times = f"median {median:.2f} s = {median / ideal:.2f} x ideal, best {best:.2f} s = {best / ideal:.2f} x"
        print(f"{work.__doc__:40} {times}, CPU {statistics.median(cpus):.2f} s")
    print(f"goal: {GOAL} x ideal")
    environment.write_results(options.json, result)


if __name__ == "__main__":
    main()
