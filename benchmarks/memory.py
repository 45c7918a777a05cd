"""The peak memory of every verb on the worst input that is still valid: many records, one photo of 48 megapixels.

Each verb runs as a process of its own; the system says what that process held at most. The offline teacher and judge
answer, so nothing leaves the machine. `import` needs a file (--gguf FILE). `fetch` needs the hub and `serve-teacher` a
client, so they are not here.

peak: MB. above: MB more than the same verb takes for almost nothing. input: MB of the files that it reads.

    python benchmarks/memory.py [--quick] [--verbs train,filter] [--gguf FILE] [--json FILE]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import environment
from PIL import Image

from minillava.scenes.compose import scenes
from minillava.scenes.draw import draw
from minillava.standins.records import caption_record, instruction_record
from minillava.text import aligned

ROOT = Path(__file__).parents[1]
WEIGHTS, BENCH = ROOT / "data_samples" / "weights", ROOT / "data_samples" / "bench" / "coco"
# ru_maxrss begins with what the starting process held; VmHWM does not. Of worker processes it is at least as much.
RUN = """import re, resource, sys
from minillava import cli
status = cli.main(sys.argv[2:])
own = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]
most = max(int(own), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024
open(sys.argv[1], "w").write(str(most))
sys.exit(status)"""


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def many(path, count, key="question_id"):
    """`count` rows, those of `path` again and again, each with a number of its own."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return ({**rows[n % len(rows)], key: n if key == "question_id" else str(n)} for n in range(count))


def make_inputs(folder, count, sides):
    """What all verbs read. count: rows. sides: of the photo, in pixels."""
    shutil.copytree(BENCH / "images", folder / "images")
    for name in ("train", "bench"):
        (folder / name).mkdir()
    photo = Image.linear_gradient("L").resize(sides).convert("RGBA")
    photo.save(folder / "images" / "photo.png", compress_level=1)
    some = scenes("train", 16)
    for scene in some:
        draw(scene, 96).save(folder / "images" / f"{scene.id}.png")
    for stage, make in ((1, caption_record), (2, lambda scene: instruction_record(scene, "conversation"))):
        records = [make(scene) for scene in some]
        rows = [{**records[n % 16], "id": str(n)} for n in range(count // 5 if stage == 1 else 64)]
        rows[0]["image"] = "photo.png"
        (folder / "train" / f"stage{stage}.json").write_text(json.dumps(rows))
    jsonl(folder / "pictures.jsonl", many(ROOT / "data_samples" / "caps_boxes.jsonl", count // 5, "id"))
    captions = (f"a {n % 977} red dog near the old house number {n} on a hill" for n in range(2 * count))
    (folder / "captions.txt").write_text("\n".join(captions))
    for name in ("questions", "context", "reference"):
        jsonl(folder / "bench" / f"{name}.jsonl", many(BENCH / f"{name}.jsonl", count // 5))
    jsonl(folder / "answers.jsonl", ({"question_id": n, "text": "A boat."} for n in range(count // 5)))
    jsonl(folder / "asked.jsonl", ({**row, "image": "photo.png"} for row in many(BENCH / "questions.jsonl", count)))
    jsonl(folder / "pope.jsonl", many(BENCH / "pope.jsonl", 2 * count))
    jsonl(folder / "yes.jsonl", ({"question_id": n, "text": "Yes."} for n in range(2 * count)))
    turns = [{"value": "Which one?\nA. this\nB. that"}, {"value": "B"}]
    (folder / "science.json").write_text(json.dumps([{"id": str(n), "conversations": turns} for n in range(2 * count)]))
    jsonl(folder / "science.jsonl", ({"question_id": str(n), "text": "The answer is B."} for n in range(2 * count)))


def commands(here, out, gguf):
    """{verb: (its arguments, the files that it reads)}."""
    images, photo, bench = here / "images", here / "images" / "photo.png", here / "bench"
    parts = [f"--{part.replace('_', '-')}={WEIGHTS / part}" for part in ("vision_tower", "language_model")]
    found = {
        "train": [here / "train", "--images", images, *parts, "--epochs", 1, "--out", out],
        "answer": [here / "asked.jsonl", "--images", images, "--limit", 8, "--out", out],
        "chat": [photo, "--ask", "What is this?"],
        "generate": ["--source", here / "pictures.jsonl", "--images", ROOT / "data_samples/pictures", "--types", "detail", "--out", out],
        "filter": [here / "captions.txt", "--out", f"{out}.txt", "--chunker", "rules"],
        "judge bench": ["--bench", bench, "--answers", here / "answers.jsonl", "--out", out],
        "judge pope": [here / "yes.jsonl", here / "pope.jsonl"],
        "judge scienceqa": [here / "science.jsonl", here / "science.json"],
        "import": [gguf, "--out", out],
        "cost": [], "doctor": [], "paper": ["--scale", "smoke", "--out", out],
    }  # fmt: skip
    return {verb: [*verb.split(), *map(str, given)] for verb, given in found.items() if verb != "import" or gguf}


def peak_of(arguments, log):
    """(MB that a process of the verb held at most, the status)."""
    with open(f"{log}.out", "w") as out, open(f"{log}.err", "w") as errors:
        command = [sys.executable, "-c", RUN, f"{log}.peak", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, check=False)
    return int(Path(f"{log}.peak").read_text()) / 1e6, done.returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the records, a photo of 3 megapixels")
    parser.add_argument("--verbs", help="only these (default: all)")
    parser.add_argument("--gguf", type=Path, help="a language model for `import`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    options, rows = parser.parse_args(), {}
    sizes = {"little": (100, (64, 48)), "worst": (1000, (2000, 1500)) if options.quick else (100_000, (8000, 6000))}
    with tempfile.TemporaryDirectory() as folder:
        for name, size in sizes.items():
            here = Path(folder) / name
            make_inputs(here, *size)
            for verb in options.verbs.split(",") if options.verbs else commands(here, "", options.gguf):
                out = here / verb.replace(" ", "-")
                arguments = commands(here, out, options.gguf)[verb]
                read = [p for a in arguments for p in (Path(a), *Path(a).glob("*.json*"), *Path(a).glob("photo.png"))]
                size = round(sum(path.stat().st_size for path in read if path.is_file()) / 1e6, 1)
                peak, status = peak_of(arguments, f"{out}.log")
                if status:
                    print(f"{verb}: status {status}\n{Path(f'{out}.log.err').read_text()[-600:]}")
                rows.setdefault(verb, {})[name] = {"peak": round(peak), "input": size, "status": status}
                print(f"{verb}, {name}: {peak:.0f} MB", flush=True)
                machine = environment.describe_machine()
                environment.write_results(options.json, {"machine": machine, "sizes": sizes, "verbs": rows})
    table = [[verb, row["worst"]["peak"], row["worst"]["peak"] - row["little"]["peak"], row["worst"]["input"]]
             for verb, row in rows.items()]  # fmt: skip
    print(aligned([[str(cell) for cell in line] for line in [["verb", "peak", "above", "input"], *table]]))


if __name__ == "__main__":
    main()
