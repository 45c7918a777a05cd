"""The concept filter of Appendix E at the size of its result: time and peak memory for 600,000 captions.

The goal is under 5 minutes and under 4 GB on 2 cores. The captions are made up but like CC3M's: about ten words, with a
long tail of nouns and adjectives (Zipf). Beside it is what one would otherwise use on the same phrases: pandas
(`explode`, `groupby`, `sample`). Each runs in its own process, so the memory is its own. Both must count the same
phrases; the random choices differ. spaCy is measured too if it and its model are installed.

    python benchmarks/concepts.py [--quick] [--json FILE]
"""

import argparse
import multiprocessing
import random
import resource
import time
from pathlib import Path

import environment

from minillava.datagen.chunks import ChunkerError, find_chunker, normalise, noun_phrases
from minillava.datagen.concepts import COMMON_ABOVE, RARE_BELOW, concept_filter

SECONDS, GIGABYTES = 300, 4.0  # the goal
VERBS = "sits stands walks is looks plays rides waits holds".split()
PLACES = "on in near under behind beside with".split()


def words(count: int, rng: random.Random) -> tuple[list[str], list[float]]:
    """Made-up words that look like nouns, and their cumulative Zipf weights."""
    syllables = [c + v + e for c in "bdfgklmnprstvz" for v in "aeiou" for e in ("", "n", "r", "st")]
    made, total, weights = set(), 0.0, []
    while len(made) < count:
        made.add("".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3)))))
    for rank in range(1, count + 1):
        total += 1 / rank
        weights.append(total)
    return rng.sample(sorted(made), count), weights  # a set's order changes from run to run


def make_captions(count: int) -> list[str]:
    rng = random.Random(0)
    (nouns, noun_weights), (adjectives, adjective_weights) = words(40_000, rng), words(6_000, rng)
    noun = iter(rng.choices(nouns, cum_weights=noun_weights, k=3 * count))
    adjective = iter(rng.choices(adjectives, cum_weights=adjective_weights, k=3 * count))
    made = []
    for _ in range(count):
        parts = []
        for _ in range(rng.choice((2, 3, 3))):
            parts.append(f"a {next(adjective)} {next(noun)}" if rng.random() < 0.5 else f"the {next(noun)}")
        made.append(f"{parts[0]} {rng.choice(VERBS)} " + f" {rng.choice(PLACES)} ".join(parts[1:]))
    return made


def ours(captions: list[str], how: str) -> tuple[int, int]:
    """(captions kept, unique phrases)."""
    found = concept_filter(captions, chunker=how)
    return len(found.kept), len(found.before)


def by_pandas(captions: list[str], how: str) -> tuple[int, int]:
    import pandas

    found = pandas.Series([list({normalise(p) for p in noun_phrases(c)}) for c in captions]).explode().dropna()
    rows = pandas.DataFrame({"caption": found.index, "phrase": found.to_numpy()})
    times = rows.groupby("phrase")["caption"].transform("size")
    common = rows[times > COMMON_ABOVE].groupby("phrase").sample(COMMON_ABOVE, random_state=0)
    kept = set(rows[(times >= RARE_BELOW) & (times <= COMMON_ABOVE)]["caption"]) | set(common["caption"])
    return len(kept), rows["phrase"].nunique()


def run_and_send(work, captions: list[str], how: str, pipe) -> None:
    start = time.perf_counter()
    found = work(captions, how)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send((found, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20))


def measure(work, captions: list[str], how: str) -> dict:
    """One call in its own process. memory_gb: its peak, including the captions."""
    near, far = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run_and_send, args=(work, captions, how, far))
    process.start()
    (kept, unique), seconds, cpu, memory = near.recv()
    process.join()
    figures = dict(seconds=round(seconds, 2), cpu_s=round(cpu, 2), memory_gb=round(memory, 3))
    return figures | dict(kept=kept, phrases=unique)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captions", type=int, default=600_000)
    parser.add_argument("--quick", action="store_true", help="60,000 captions")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    count = 60_000 if options.quick else options.captions
    captions = make_captions(count)
    result = dict(machine=environment.describe_machine(), quick=options.quick, captions=count)
    result["goal"] = {"seconds": SECONDS, "memory_gb": GIGABYTES}
    print(f"{count:,} captions of {sum(len(c.split()) for c in captions) / count:.1f} words")
    runs = {"rules": ("minillava, rules", ours, "rules"), "pandas": ("pandas, rules", by_pandas, "rules")}
    try:
        runs |= {"spacy": ("minillava, spaCy", ours, "spacy")} if find_chunker("spacy") else {}
    except ChunkerError as error:
        print(f"spaCy: not measured ({error})")
    for name, (title, work, how) in runs.items():
        result[name] = found = measure(work, captions, how)
        took = f"{found['seconds']:7.1f} s ({found['cpu_s']:.1f} s CPU), {found['memory_gb']:.2f} GB"
        print(f"{title:30} {took}, kept {found['kept']:,}, {found['phrases']:,} phrases")
    rules, other = result["rules"], result["pandas"]
    assert rules["phrases"] == other["phrases"] and abs(rules["kept"] / other["kept"] - 1) < 0.01, "results differ"
    result["ratio"] = {k: round(other[k] / rules[k], 2) for k in ("seconds", "cpu_s", "memory_gb")}
    print(f"pandas / minillava: {result['ratio']}; goal: {SECONDS} s, {GIGABYTES:g} GB")
    environment.write_results(options.json, result)


if __name__ == "__main__":
    main()
