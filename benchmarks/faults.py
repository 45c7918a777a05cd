"""Whether kills and a full disk lose, double or silently change anything that `generate`, `train` and `paper` make.

Each verb first runs undisturbed. Then it starts in a new folder, meets a fault at a random moment and is started again,
and so on, until a run finishes before its fault comes. What it has made must be the same, byte for byte but for times:
records, replies, weights, reports. A fault is one of four signals, or a disk that is full from that moment on. The
server counts its requests: none may be paid twice, except after SIGKILL those in flight. The disk is a small tmpfs;
where none can be mounted (it takes root, on Linux), no file may grow beyond a random size instead.

lost: files that are missing, and runs that did not finish. doubled: requests paid twice. other: files that differ or
should not be there. The status is 1 if there are any, beyond what SIGKILL may cost, or a traceback.

    python benchmarks/faults.py [--quick] [--kills GENERATE TRAIN PAPER] [--json FILE]
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from functools import partial
from itertools import cycle
from pathlib import Path

import environment
from safetensors import deserialize

from minillava.asking.server import serve
from minillava.data.records import write_records
from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import caption_record, instruction_record
from minillava.standins.teacher import offline_reply
from minillava.text import aligned

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
FULL_DISK = "full disk"
MOST = 3  # faults in one folder
CONCURRENCY, LATENCY = 8, 0.5  # requests at a time; seconds for a reply, so that most moments fall into the asking
PICTURES = 24  # of generate (three requests each) and of train
PATIENCE = 600  # seconds until a run counts as stuck
# Files that say how or when a run went, not what it made; report.json has what report.md says.
OF_A_RUN = {".lock", "asked.jsonl", "summary.json", "state.json", "report.md"}
OF_A_RUN |= {"features.jsonl", "features-2.jsonl", "pictures.json"}  # with the time at which a picture was written
UNSEEDED = ("random/0/python", "random/0/numpy")  # random states of a checkpoint that nothing depends on


class Teacher:
    """The offline teacher behind the API of OpenAI. `asked`: how often it was asked each request."""

    def __init__(self):
        self.asked, self.lock = Counter(), threading.Lock()
        self.server = serve(self.reply)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, body: dict) -> dict:
        with self.lock:
            self.asked[json.dumps(body, sort_keys=True)] += 1
        time.sleep(LATENCY)
        return offline_reply(body)


def write_data(folder: Path) -> Path:
    """Records and pictures for `train`."""
    some = scenes("train", PICTURES)
    (folder / "images").mkdir(parents=True)
    for scene in some:
        draw(scene, 96).save(folder / "images" / f"{scene.id}.png")
    write_records([caption_record(scene) for scene in some], folder / "stage1.json")
    write_records([instruction_record(scene, "conversation") for scene in some], folder / "stage2.json")
    return folder


def commands(data: Path, port: int) -> dict[str, list[str]]:
    """The three verbs with their arguments, without --out."""
    generate = f"generate --source picture-book --limit {PICTURES} --teacher openai --model offline --yes --price 1,1"
    generate += f" --base-url http://127.0.0.1:{port}/v1 --concurrency {CONCURRENCY}"
    train = ["train", str(data), *"--batch 4 --epochs 2 --dtype float32".split()]
    return {"generate": generate.split(), "train": train, "paper": "paper --scale smoke".split()}


def start(command: list[str], out: Path, most_bytes: int | None = None) -> subprocess.Popen:
    """Start a verb on one thread. most_bytes: no file may grow beyond that."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most_bytes, most_bytes)) if most_bytes else None
    whole = [sys.executable, "-m", "minillava", *command, "--out", str(out)]
    streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    where = dict(cwd=Path(__file__).parents[1], env=os.environ | {"OMP_NUM_THREADS": "1"})
    return subprocess.Popen(whole, preexec_fn=limit, **where, **streams)


def finish(process: subprocess.Popen) -> str:
    """Wait for a run; returns what it said. One that is stuck is killed."""
    try:
        return process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return f"stuck for {PATIENCE} s\n{process.communicate()[1]}"


def made(folder: Path) -> dict[str, str]:
    """A checksum of each file. Seconds, the order of replies and unused random states may differ, so they are left out."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in OF_A_RUN:
            data = path.read_bytes()
            if path.name == "replies.jsonl":
                data = b"\n".join(sorted(data.splitlines()))
            elif path.name == "report.json":
                data = json.dumps(json.loads(data) | {"seconds": None}).encode()
            elif "checkpoints" in path.parts:
                if path.parent.name < max(os.listdir(path.parent.parent)):
                    continue  # an older one, of any step
                kept = {name: tensor["data"] for name, tensor in deserialize(data) if not name.startswith(UNSEEDED)}
                data = b"".join(kept[name] for name in sorted(kept))
            found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


def compare(wanted: dict[str, str], found: dict[str, str]) -> tuple[list[str], list[str]]:
    """The files that are missing, and those that differ or should not be there."""
    lost = [f"{name} is missing" for name in wanted.keys() - found.keys()]
    other = [f"{name} differs" for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    return sorted(lost), sorted(other + [f"{name} is too many" for name in found.keys() - wanted.keys()])


@contextmanager
def small_disk(folder: Path, wanted: bool):
    """A new folder, until the block ends; yields whether it is a disk of its own, if that is wanted and possible."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "none", str(folder)]
    mounted = wanted and bool(shutil.which("mount")) and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))  # the last one is written in part


class Undisturbed:
    """A run without a fault. `begins`, `seconds`: when its folder was there, and when it ended."""

    def __init__(self, verb: str, command: list[str], out: Path):
        self.verb, self.command, began = verb, command, time.monotonic()
        process = start(command, out)
        while not out.exists() and process.poll() is None:
            time.sleep(0.01)
        self.begins = time.monotonic() - began
        said = finish(process)
        self.seconds = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{verb} fails without a fault:\n{said}")
        self.made = made(out)
        self.largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())


def disturb(whole: Undisturbed, fault: str, most: int, rng: random.Random, folder: Path, teacher: Teacher) -> dict:
    """Run a verb in a new folder with at most `most` faults of one kind, until it finishes; what came of it."""
    row = dict(verb=whole.verb, fault=fault, times=0, lost=0, doubled=0, other=0, problems=[])
    with small_disk(folder / "disk", fault == FULL_DISK) as mounted:
        out, filler, struck = folder / "disk" / "out", folder / "disk" / "filler", True
        teacher.asked.clear()
        while struck:
            more = row["times"] < most
            limit = rng.randint(1, whole.largest) if more and fault == FULL_DISK and not mounted else None
            process, struck = start(whole.command, out, limit), limit is not None
            if more and not limit:
                try:
                    process.wait(rng.uniform(whole.begins, whole.seconds))
                except subprocess.TimeoutExpired:
                    struck = True
                    fill(filler) if mounted else process.send_signal(getattr(signal, fault))
            said, status = finish(process), process.returncode
            filler.unlink(missing_ok=True)
            row["times"] += struck
            if not row["times"]:  # the machine is less busy than it was, and moments must come sooner
                whole.begins, whole.seconds = 0.8 * whole.begins, 0.8 * whole.seconds
            row["problems"] += [said[-2000:]] if "Traceback" in said or "stuck" in said else []
        lost, other = compare(whole.made, made(out))
    row["problems"] += lost + other + ([f"status {status}: {said[-2000:]}"] if status else [])
    row |= dict(lost=len(lost) + bool(status), doubled=teacher.asked.total() - len(teacher.asked), other=len(other))
    if row["doubled"] > (CONCURRENCY * row["times"] if fault == "SIGKILL" else 0):
        row["problems"].append("more was paid twice than was in flight")
    return row


def summary(rows: list[dict]) -> list[dict]:
    """One row per verb and fault; folders: how often it was begun anew."""
    table = defaultdict(Counter)
    for row in rows:
        counts = {name: row[name] for name in ("times", "lost", "doubled", "other")}
        table[row["verb"], row["fault"]].update(folders=1, **counts)
    return [{"verb": verb, "fault": fault, **counts} for (verb, fault), counts in sorted(table.items())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    counts = ("GENERATE", "TRAIN", "PAPER")
    parser.add_argument("--kills", type=int, nargs=3, metavar=counts, default=[100, 30, 20], help="(100 30 20)")
    parser.add_argument("--full", type=int, nargs=3, metavar=counts, default=[10, 6, 4], help="full disks (10 6 4)")
    parser.add_argument("--quick", action="store_true", help="4, 2 and 1 kills, no full disk")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.kills, options.full = [4, 2, 1], [0, 0, 0]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it, and so its children
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    rng, rows, teacher = random.Random(0), [], Teacher()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        verbs = commands(write_data(folder / "data"), teacher.server.server_port)
        for (verb, command), kills, full in zip(verbs.items(), options.kills, options.full):
            if kills == full == 0:
                continue
            whole = Undisturbed(verb, command, folder / verb)
            print(f"{verb}: {whole.seconds:.0f} s without a fault", flush=True)
            for wanted, faults in ((kills, SIGNALS), (full, (FULL_DISK,))):
                turns, most = cycle(rng.sample(faults, len(faults))), min(MOST, max(1, wanted // len(faults)))
                while wanted > 0:
                    with tempfile.TemporaryDirectory(dir=folder) as inner:
                        rows.append(disturb(whole, next(turns), min(wanted, most), rng, Path(inner), teacher))
                    wanted -= rows[-1]["times"]
                    print(*(f"{name} {value}" for name, value in rows[-1].items()), sep=", ", flush=True)
    table, problems = summary(rows), [row for row in rows if row["problems"]]
    print(aligned([list(table[0]), *(list(map(str, row.values())) for row in table)]))
    result = dict(machine=environment.describe_machine(), quick=options.quick, kills=options.kills)
    result |= dict(full_disks=options.full, concurrency=CONCURRENCY, faults=table, problems=problems)
    environment.write_results(options.json, result)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
