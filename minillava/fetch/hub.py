"""The real data (the paper's appendix D): its names on the hub, and how to get it into a folder.

    FOLDER/stage1.json, stage2.json   records in the authors' JSON that have their picture
    FOLDER/images/                    the pictures of both
    FOLDER/stage1.card.json, ...      dataset, seed, counts, what was left out

A subset does not need the whole download. Files of records go to the hub's own cache (`huggingface_hub`). CC3M's
pictures come from images.zip by range requests, in runs of neighbours; COCO's one by one from COCO; ScienceQA's from
its parquet file (`datasets`). A second call resumes a stopped one.

    minillava fetch instruct --limit 1000 --out data/instruct
"""

import fnmatch
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from minillava.data.records import RecordError, pictures_of, write_records
from minillava.data.scienceqa import parquet_pictures, read_parquet, science_record, write_problems
from minillava.data.valid import Tally, each_record, read_records, valid_records
from minillava.fetch import remote
from minillava.fetch.remote import FetchError, MissingPictures, Progress, RemoteZip, download_each, write_picture
from minillava.files import FileError, write_json
from minillava.machine import progress_bar

RUN_LENGTH = 64  # neighbours in the zip that are drawn together: 60,000 pictures take a thousand requests


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the hub. files: part -> file of records, with * for a checksum in its name; the first part is the
    default. pictures: where its pictures are, "zip", "coco" or "parquet". stage: the stage that trains on it."""

    repo: str
    files: dict[str, str]
    pictures: str
    stage: str


HUB_DATASETS = {
    "pretrain": HubDataset("liuhaotian/LLaVA-CC3M-Pretrain-595K", {"all": "chat.json"}, "zip", "stage1"),
    "instruct": HubDataset(
        "liuhaotian/LLaVA-Instruct-150K",
        {
            "all": "llava_instruct_150k.json",
            "conversation": "conversation_58k.json",
            "detail": "detail_23k.json",
            "complex": "complex_reasoning_77k.json",
        },
        "coco",
        "stage2",
    ),
    "scienceqa": HubDataset(
        "derek-thomas/ScienceQA",
        {part: f"data/{part}-*.parquet" for part in ("train", "validation", "test")},
        "parquet",
        "stage2",
    ),
}
COCO_URL = "http://images.cocodataset.org/train2017"


@dataclass(frozen=True)
class Endpoints:
    """Addresses. hub: None for huggingface_hub's default (HF_ENDPOINT). cache: the hub's folder on this machine.

    revision: the dataset's branch, tag or commit on the hub; None for main.
    """

    hub: str | None = None
    coco: str = COCO_URL
    cache: Path | None = None
    revision: str | None = None


def download(dataset: HubDataset, part: str, endpoints: Endpoints) -> Path:
    """The file of a part's records in the hub's cache, downloaded if it is not there. Raises FetchError."""
    from huggingface_hub import HfApi, hf_hub_download

    if part not in dataset.files:
        raise FetchError(f"no part {part!r} in {dataset.repo}; there are: {', '.join(dataset.files)}")
    name, where = dataset.files[part], dict(repo_type="dataset", revision=endpoints.revision)
    try:
        if "*" in name:
            names = HfApi(endpoints.hub).list_repo_files(dataset.repo, **where)
            found = fnmatch.filter(names, name)
            if len(found) != 1:
                raise FetchError(f"{dataset.repo}: {len(found)} files are named {name}; expected one")
            name = found[0]
        return Path(hf_hub_download(dataset.repo, name, endpoint=endpoints.hub, cache_dir=endpoints.cache, **where))
    except network_errors() as error:
        raise fetch_error(f"{dataset.repo}/{name}", error) from error


def network_errors() -> tuple:
    """Errors that the hub's client raises without a network, for a missing file, or when a server fails too often."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # Its bases are OSError and the error of its HTTP library, which depends on the version.
    return (*HfHubHTTPError.__bases__, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)


def fetch_error(what: str, error: Exception) -> FetchError:
    """The error for `what`, with the first line of the hub client's error."""
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return FetchError(f"{what}: cannot be fetched ({said}); check the network and run the same command again to resume")


def remote_zip(repo: str, endpoints: Endpoints) -> RemoteZip:
    """A dataset's images.zip, read in ranges. Raises FetchError."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils import http_stream_backoff

    at = f"@{quote(endpoints.revision, safe='')}" if endpoints.revision else ""
    files, path = HfFileSystem(endpoint=endpoints.hub), f"datasets/{repo}{at}/images.zip"
    try:
        size, url = files.info(path)["size"], files.url(path)
        headers = files._api._build_hf_headers()

        def read(start, end):
            wanted = headers | remote.UNPACKED | {"range": f"bytes={start}-{end - 1}"}
            wait = {"timeout": 60, "base_wait_time": remote.FIRST_DELAY}
            try:
                with http_stream_backoff("GET", url, headers=wanted, **wait) as response:
                    response.raise_for_status()
                    return remote.read_body(response, end - start)
            except network_errors() as error:
                raise fetch_error(path, error) from error

        return RemoteZip(read, size, path)
    except network_errors() as error:
        raise fetch_error(path, error) from error


def draw_runs(names: list[str], count: int, seed: int) -> set[str]:
    """`count` names, drawn at random in runs of neighbours."""
    rng, starts = random.Random(f"fetch {seed}"), list(range(0, len(names), RUN_LENGTH))
    rng.shuffle(starts)
    return set([n for start in starts for n in names[start : start + RUN_LENGTH]][:count])


def draw_indices(count: int, limit: int | None, seed: int) -> list[int]:
    """`limit` of the numbers below `count`, drawn at random, ascending."""
    if limit is None or limit >= count:
        return list(range(count))
    return sorted(random.Random(f"fetch {seed}").sample(range(count), limit))


def extract_pictures(path: Path, images: Path, names: list[str], lost: MissingPictures, progress: Progress) -> None:
    """Write the named pictures of a parquet file that are not in the folder yet."""
    wanted = {n for n in names if not (images / n).exists()}
    progress(len(names) - len(wanted))
    for name, data in parquet_pictures(path) if wanted else ():
        if name in wanted:
            try:
                write_picture(data, images / name)
            except ValueError as error:
                lost.add(name, str(error))
            progress(1)


def fetch(
    name: str,
    folder: Path,
    part: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    missing: float = 0.02,
    endpoints: Endpoints | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    format: str = "QCM-LEPA",
) -> dict:
    """Fill a folder with the records and pictures of a dataset. Returns the content of its card.

    limit: the number of records, drawn at random (None: all). missing: the share of pictures, and of bad records, that
    may be left out. progress(pictures done, pictures in all). format: of ScienceQA's answers. Raises FetchError.
    """
    if name not in HUB_DATASETS:
        raise FetchError(f"no dataset {name!r}; there are: {', '.join(HUB_DATASETS)}")
    if limit is not None and limit < 1:
        raise FetchError(f"--limit {limit}: at least 1 is needed")
    dataset, folder = HUB_DATASETS[name], Path(folder)
    part = part or next(iter(dataset.files))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return _fill(dataset, part, folder, limit, seed, missing, endpoints or Endpoints(), progress, format)
    except Timeout:
        raise FetchError(f"{folder}: another run is at work in this folder; wait for it or name another") from None


def _records(path: Path, dataset: HubDataset, format: str, tally: Tally) -> Iterator[dict]:
    """The valid records of a file, one by one; `tally` counts changes and the others. Raises FetchError."""
    try:
        if dataset.pictures == "parquet":
            yield from valid_records((science_record(p, format) for p in read_parquet(path).values()), tally)
        else:
            yield from valid_records(each_record(path), tally)
    except (FileError, RecordError) as error:
        raise FetchError(str(error)) from error


def _fill(dataset, part, folder, limit, seed, missing, endpoints, progress, format) -> dict:
    path, images, tally = download(dataset, part, endpoints), folder / "images", Tally()
    images.mkdir(exist_ok=True)
    pictures = [pictures_of(record) for record in _records(path, dataset, format, tally)]  # names only, to save memory
    if tally.bad > missing * tally.read:
        raise FetchError(f"{path}: {tally.bad:,} of {tally.read:,} records break the format\n{tally.table(path)}")
    archive = remote_zip(dataset.repo, endpoints) if dataset.pictures == "zip" else None
    if archive and limit is not None:  # drawn from the zip's own names, so none of them can be missing
        known = {name for names in pictures for name in names}
        drawn = draw_runs([n for n in archive.names() if n in known], limit, seed)
        chosen = [n for n, names in enumerate(pictures) if names and drawn.issuperset(names)][:limit]
    else:
        chosen = draw_indices(len(pictures), limit, seed)
    names = list(dict.fromkeys(name for n in chosen for name in pictures[n]))
    lost, done = MissingPictures(len(names), missing), 0

    def advance(count):
        nonlocal done
        done += count
        progress(done, len(names))

    if archive:
        archive.extract(images, names, lost, advance)
    elif dataset.pictures == "coco":
        download_each(endpoints.coco, images, names, lost, advance)
    else:
        extract_pictures(path, images, names, lost, advance)
    wanted = {n for n in chosen if all((images / name).is_file() for name in pictures[n])}
    records = (record for n, record in enumerate(_records(path, dataset, format, Tally())) if n in wanted)
    result = folder / f"{dataset.stage}.json"
    count = write_records(records, result)
    if dataset.pictures == "parquet":  # `minillava answer` and `minillava judge scienceqa` need the problems
        problems = read_parquet(path)
        write_problems([problems[record["id"]] for record in read_records(result)], folder)
    card = {
        "source": dataset.repo,
        "revision": endpoints.revision or "main",
        "part": part,
        "seed": seed,
        "limit": limit,
        "records": count,
        "pictures": len(names) - len(lost.reasons),
        "missing pictures": lost.reasons,
        "changed and left out": tally.table(path).split("\n") if tally.causes else [],
    }
    write_json(folder / f"{dataset.stage}.card.json", card)
    return card


def fetch_with_bar(
    dataset: str, out, part=None, limit=None, seed: int = 0, missing: float = 0.02, revision: str | None = None
) -> dict:
    """`fetch` with a progress bar."""
    with progress_bar(1, "picture") as progress:

        def show(done, total):
            progress.total = total
            progress.update(done - progress.n)

        return fetch(dataset, out, part, limit, seed, missing, Endpoints(revision=revision), show)
