"""How close to the ideal time many requests come: 2,000 requests, 50 ms of latency, 64 at a time.

Notable: the ideal is ceil(requests / concurrency) x latency, what a client without any cost of its own would take. The
goal is 1.25 times that, journal and fsync included. Beside it, what one would otherwise write: the client's own
`chat.completions.create` under a semaphore, which keeps nothing, with the same requests at the same server, in turn.
And what that client's `post` takes without its transport: one after another with nothing sent, the answer already there.

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

import here
import httpx2  # which comes with openai
import openai

from minillava.asking import Journal, ask_all, chat_request
from minillava.asking.client import Client

GOAL = 1.25


def answer_all(port: int, latency: float, ready) -> None:
    """A server that costs next to nothing: reads a request, waits, sends the same answer."""
    text = "Question:\nWhat is on the left?\n===\nAnswer:\nA red car is on the left."
    message = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 900, "completion_tokens": 20, "total_tokens": 920}
    data = json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [message], "usage": usage}
    )
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data.encode()
    )

    async def talk(reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                await asyncio.sleep(latency)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main():
        server = await asyncio.start_server(talk, "127.0.0.1", port, backlog=512)
        ready.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


def requests(count: int) -> list[dict]:
    """As section 3 has them: a system message, three few-shot pairs, five captions; some 5 KB each."""
    shots = [
        {"role": role, "content": "a red car on the left, a dog on the right. " * 15}
        for role in ("user", "assistant") * 3
    ]
    system = {"role": "system", "content": "You write questions and answers about a picture. " * 25}
    return [
        chat_request("m", [system, *shots, {"role": "user", "content": f"Scene {n}. " * 30}], 512) for n in range(count)
    ]


def ours(bodies: list[dict], url: str, concurrency: int) -> None:
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
        outcome = ask_all(bodies, Client("m", url), journal, concurrency=concurrency, progress=False)
        assert len(outcome.replies) == len(bodies)


def plain(bodies: list[dict], url: str, concurrency: int) -> None:
    async def main():
        client, free = openai.AsyncOpenAI(api_key="none", base_url=url), asyncio.Semaphore(concurrency)

        async def one(body):
            async with free:
                return (await client.chat.completions.create(**body)).choices[0].message.content

        assert all(await asyncio.gather(*map(one, bodies)))
        await client.close()

    asyncio.run(main())


def client_alone(bodies: list[dict], url: str, concurrency: int) -> None:
    answer = json.dumps({"choices": [{"message": {"content": "A red car is on the left."}, "finish_reason": "stop"}]})

    async def main():
        there = httpx2.MockTransport(lambda request: httpx2.Response(200, text=answer, headers={"content-type": "application/json"}))  # fmt: skip
        client = openai.AsyncOpenAI(api_key="none", base_url=url, http_client=openai.DefaultAsyncHttpxClient(transport=there))  # fmt: skip
        for body in bodies:
            assert await client.post("/chat/completions", body=body, cast_to=object)
        await client.close()

    asyncio.run(main())


def seconds(what, *arguments) -> tuple[float, float]:
    """(wall, CPU) seconds of a call."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    what(*arguments)
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
    for what in (ours, plain, client_alone):
        what(bodies[:64], url, options.concurrency)  # imports and the first connection are not what is measured
    rounds = {"ours": [], "plain": [], "client_alone": []}
    for _ in range(options.rounds):
        for what in (ours, plain, client_alone):
            rounds[what.__name__].append(seconds(what, bodies, url, options.concurrency))
    server.terminate()
    result = {"machine": here.machine() | {"openai": openai.__version__}, "quick": options.quick, "requests": options.requests, "latency_s": options.latency,
              "concurrency": options.concurrency, "rounds": options.rounds, "ideal_s": ideal, "goal": GOAL}  # fmt: skip
    print(
        f"{options.requests} requests, {options.latency * 1000:.0f} ms, {options.concurrency} at a time; ideal {ideal:.2f} s"
    )
    for name, taken in rounds.items():
        walls = [wall for wall, _ in taken]
        result[name] = {"wall_s": [round(w, 3) for w in walls], "cpu_s": [round(c, 3) for _, c in taken],
                        "best_ratio": round(min(walls) / ideal, 3), "median_ratio": round(statistics.median(walls) / ideal, 3)}  # fmt: skip
        said = {"ours": "minillava, journal and fsync included", "plain": "openai's own create, nothing kept",
                "client_alone": "openai's post, nothing sent"}[name]  # fmt: skip
        print(f"{said:40} median {statistics.median(walls):.2f} s = {result[name]['median_ratio']:.2f} x ideal,"
              f" best {min(walls):.2f} s = {result[name]['best_ratio']:.2f} x, CPU {statistics.median(c for _, c in taken):.2f} s")  # fmt: skip
    print(f"goal: {GOAL} x ideal")
    here.write(options.json, result)


if __name__ == "__main__":
    main()
