"""The real data (facts of the paper's appendix D): what it is called on the hub, and how it comes into a folder.

    FOLDER/stage1.json, stage2.json   records in the authors' JSON: those whose picture is there
    FOLDER/images/                    the pictures of both
    FOLDER/stage1.card.json, ...      source, seed, counts, what was left out

Notable: a subset needs no download of the whole. Records come as files into the hub's own cache (`huggingface_hub`);
CC3M's pictures out of its images.zip by range requests, in runs of neighbours, COCO's one by one from COCO, ScienceQA's
out of its parquet file (`datasets`). Started again, it goes on.

    minillava fetch instruct --limit 1000 --out data/instruct
"""

import fnmatch
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from minillava.data.records import RecordError, write_records
from minillava.data.scienceqa import parquet_pictures, read_parquet, science_record, write_problems
from minillava.data.valid import each_record, good
from minillava.fetch import remote
from minillava.fetch.remote import FetchError, RemoteZip, Tally, keep, one_by_one
from minillava.machine import progress_bar

TOGETHER = 64  # pictures of a zip that are drawn as neighbours: 60,000 of them are a thousand requests


@dataclass(frozen=True)
class Source:
    """A dataset on the hub. files: part -> the file of its records (with * where a name has a checksum in it); the first
    part is what is taken unless another is named. pictures: "zip", "coco" or "parquet", where its pictures are. stage:
    what it is for."""

    repo: str
    files: dict[str, str]
    pictures: str
    stage: str


SOURCES = {
    "pretrain": Source(
        "liuhaotian/LLaVA-CC3M-Pretrain-595K", {"all": "chat.json"}, "zip", "stage1"
    ),
    "instruct": Source(
        "liuhaotian/LLaVA-Instruct-150K",
        {"all": "llava_instruct_150k.json", "conversation": "conversation_58k.json", "detail": "detail_23k.json",
         "complex": "complex_reasoning_77k.json"},
        "coco", "stage2",
    ),
    "scienceqa": Source(
        "derek-thomas/ScienceQA",
        {"train": "data/train-*.parquet", "validation": "data/validation-*.parquet", "test": "data/test-*.parquet"},
        "parquet", "stage2",
    ),
}  # fmt: skip
COCO = "http://images.cocodataset.org/train2017"


@dataclass(frozen=True)
class Places:
    """Where things are. hub: its address, None for the one that huggingface_hub knows (HF_ENDPOINT); cache: its folder."""

    hub: str | None = None
    coco: str = COCO
    cache: Path | None = None


def download(source: Source, part: str, places: Places) -> Path:
    """The file of a part's records in the hub's cache, fetched where it is not there yet. Raises FetchError."""
    from huggingface_hub import HfApi, hf_hub_download

    if part not in source.files:
        raise FetchError(f"no part {part!r} in {source.repo}; there are: {', '.join(source.files)}")
    name = source.files[part]
    try:
        if "*" in name:
            names = HfApi(places.hub).list_repo_files(source.repo, repo_type="dataset")
            found = fnmatch.filter(names, name)
            if len(found) != 1:
                raise FetchError(f"{source.repo}: {len(found)} files are called {name}; expected one")
            name = found[0]
        return Path(
            hf_hub_download(source.repo, name, repo_type="dataset", endpoint=places.hub, cache_dir=places.cache)
        )
    except network_errors() as error:
        raise unreachable(f"{source.repo}/{name}", error) from error


def network_errors() -> tuple:
    """What the hub's client raises where there is no network, no such file, or a server that stumbles too often."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # Its bases are OSError and the error of its client's library, which is another from version to version.
    return (*HfHubHTTPError.__bases__, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)


def unreachable(what: str, error: Exception) -> FetchError:
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return FetchError(f"{what}: cannot be fetched ({said}); with a network the same command goes on")


def remote_zip(repo: str, places: Places) -> RemoteZip:
    """images.zip of a dataset, read in ranges. Raises FetchError."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import http_backoff

    files, path = HfFileSystem(endpoint=places.hub), f"datasets/{repo}/images.zip"
    try:
        size, url = files.info(path)["size"], files.url(path)
        headers = files._api._build_hf_headers()

        def read(start, end):
            wanted = headers | {"range": f"bytes={start}-{end - 1}"}
            try:
                answer = http_backoff("GET", url, headers=wanted, timeout=60, base_wait_time=remote.PATIENCE)
                answer.raise_for_status()
                return answer.content
            except network_errors() as error:
                raise unreachable(path, error) from error

        return RemoteZip(read, size, path)
    except network_errors() as error:
        raise unreachable(path, error) from error


def drawn(names: list[str], count: int, seed: int) -> set[str]:
    """`count` names, drawn as runs of neighbours."""
    rng, starts = random.Random(f"fetch {seed}"), list(range(0, len(names), TOGETHER))
    rng.shuffle(starts)
    return set([n for start in starts for n in names[start : start + TOGETHER]][:count])


def choose(count: int, limit: int | None, seed: int) -> list[int]:
    """`limit` of the numbers below `count` by chance, rising."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(f"fetch {seed}").sample(range(count), limit))


def unpack(path: Path, images: Path, names: list[str], tally: Tally, progress: Callable[[int], None]) -> None:
    """Write the named pictures of a parquet file that are not there yet; those that are none are counted."""
    wanted = {n for n in names if not (images / n).exists()}
    progress(len(names) - len(wanted))
    for name, data in parquet_pictures(path) if wanted else ():
        if name in wanted:
            try:
                keep(data, images / name)
            except ValueError as error:
                tally.lost(name, str(error))
            progress(1)


def fetch(
    name: str, folder: Path, part: str | None = None, limit: int | None = None, seed: int = 0, missing: float = 0.02,
    places: Places | None = None, progress: Callable[[int, int], None] = lambda done, total: None,
    format: str = "QCM-LEPA",
) -> dict:  # fmt: skip
    """Fill a folder with records and pictures; returns what its card says.

    limit: so many records by chance (None: all). missing: the share of pictures (and of bad records) that may be left
    out. progress(done, of how many pictures). format: of ScienceQA's answers. Raises FetchError.
    """
    if name not in SOURCES:
        raise FetchError(f"no source is called {name!r}; there are: {', '.join(SOURCES)}")
    if limit is not None and limit < 1:
        raise FetchError(f"--limit {limit}: at least 1 is needed")
    source, places, folder = SOURCES[name], places or Places(), Path(folder)
    part = part or next(iter(source.files))
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            return _fill(source, part, folder, limit, seed, missing, places, progress, format)
    except Timeout:
        raise FetchError(f"{folder}: another run is at work in this folder; wait for it or name another") from None


def _records(path: Path, source: Source, format: str, bad: list[str]) -> Iterator[dict]:
    """The good records of a file, one at a time; what is wrong with the others goes into `bad`. Raises FetchError."""
    try:
        if source.pictures == "parquet":
            yield from good((science_record(p, format) for p in read_parquet(path).values()), bad)
        else:
            yield from good(each_record(path), bad)
    except RecordError as error:
        raise FetchError(str(error)) from error


def _fill(source, part, folder, limit, seed, missing, places, progress, format) -> dict:
    path, images, bad = download(source, part, places), folder / "images", []
    images.mkdir(exist_ok=True)
    pictures = [record.get("image") for record in _records(path, source, format, bad)]  # of each; no more is kept
    if len(bad) > missing * (len(pictures) + len(bad)):
        raise FetchError(f"{path}: {len(bad):,} of {len(pictures) + len(bad):,} records break the format: {bad[0]}")
    archive = remote_zip(source.repo, places) if source.pictures == "zip" else None
    if archive and limit is not None:  # what is missing from the zip would never be drawn: it is not looked for
        known = set(pictures)
        drawn_ones = drawn([n for n in archive.names() if n in known], limit, seed)
        chosen = [n for n, picture in enumerate(pictures) if picture in drawn_ones][:limit]
    else:
        chosen = choose(len(pictures), limit, seed)
    names = list(dict.fromkeys(pictures[n] for n in chosen if pictures[n]))
    tally, done = Tally(len(names), missing), 0

    def more(count):
        nonlocal done
        done += count
        progress(done, len(names))

    if archive:
        archive.into(images, names, tally, more)
    elif source.pictures == "coco":
        one_by_one(places.coco, images, names, tally, more)
    else:
        unpack(path, images, names, tally, more)
    wanted = {n for n in chosen if not pictures[n] or (images / pictures[n]).is_file()}
    again, ids = enumerate(_records(path, source, format, [])), []
    kept = (ids.append(record["id"]) or record for n, record in again if n in wanted)
    count = write_records(kept, folder / f"{source.stage}.json")
    if source.pictures == "parquet":  # for `minillava answer` and `minillava judge scienceqa`
        problems = read_parquet(path)
        write_problems([problems[name] for name in ids], folder)
    card = {
        "source": source.repo, "part": part, "seed": seed, "limit": limit, "records": count,
        "pictures": len(names) - len(tally.missing), "missing pictures": tally.missing, "bad records": bad,
    }  # fmt: skip
    (folder / f"{source.stage}.card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return card


def shown(source: str, out, part=None, limit=None, seed: int = 0, missing: float = 0.02) -> dict:
    """`fetch` with a progress bar."""
    with progress_bar(1, "picture") as progress:

        def show(done, total):
            progress.total = total
            progress.update(done - progress.n)

        return fetch(source, out, part, limit, seed, missing, progress=show)
