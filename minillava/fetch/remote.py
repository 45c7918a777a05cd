"""Pictures from far away into a folder: out of a remote zip by range requests, or one by one; what is there is kept.

Notable: of a zip of 6.5 GB only its directory and the wanted pictures are read. Pictures that lie near one another come
with one request. A picture is written beside its place and renamed, so that a stopped run goes on; what is missing or
no picture is counted, and too many end the run (`Tally`).

    with ZipFile(Window(read, size)) as archive: ...      # read(start, end) -> bytes of [start, end)
"""

import io
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from minillava.errors import UserError
from minillava.files import whole
from minillava.text import listed

WORKERS = 8  # requests under way
GAP, RUN = 64 << 10, 4 << 20  # bytes: neighbours are read with one request over such a gap, up to such a length
TRIES, PATIENCE = 4, 1.0  # of one request; seconds before the second try, doubled each time
LARGEST = 64 << 20  # bytes of one picture


class FetchError(UserError):
    """What cannot be fetched, or too much that is missing; the message says what to do."""


class Tally:
    """What is missing of `wanted` things, and the share of them above which it is too much."""

    def __init__(self, wanted: int, limit: float):
        self.wanted, self.limit, self.missing = wanted, limit, {}

    def lost(self, name: str, why: str) -> None:
        """Count one. Raises FetchError, with the first ten, once there are too many."""
        self.missing[name] = why
        if len(self.missing) > self.limit * self.wanted:
            lines = [f"{name}: {why}" for name, why in self.missing.items()]
            raise FetchError(
                f"{len(lines):,} of {self.wanted:,} pictures are missing, more than {self.limit:.1%} (--missing):\n"
                f"{listed(lines)}\nwhat was fetched is kept; the same command goes on"
            )


def ahead(work: Callable, items: Iterable, workers: int = WORKERS) -> Iterator[tuple]:
    """(item, future of work(item)) in order, `workers` of them under way at a time and no more held."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def keep(data: bytes, path: Path) -> None:
    """Write a picture's bytes, whole or not at all. Raises ValueError where they are no picture."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
    except Exception as error:  # Pillow raises whatever its parsers do
        raise ValueError(f"not a picture ({str(error)[:80]})") from None
    with whole(path, sync=False) as temporary:
        temporary.write_bytes(data)


class Window(io.RawIOBase):
    """A remote file as a seekable one, for `zipfile`. read(start, end) -> its bytes in [start, end).

    It holds one stretch of the file: what was asked for last, or what `hold` was given.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int):
        self.fetch, self.size, self.at, self.start, self.held = read, size, 0, 0, b""

    def hold(self, start: int, data: bytes) -> None:
        self.start, self.held = start, data

    def seekable(self):
        return True

    def readable(self):
        return True

    def tell(self):
        return self.at

    def seek(self, offset, whence=io.SEEK_SET):
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, count=-1):
        end = self.size if count is None or count < 0 else min(self.at + count, self.size)
        if end <= self.at:
            return b""
        if not self.start <= self.at <= end <= self.start + len(self.held):
            self.hold(self.at, self.fetch(self.at, end))
            if len(self.held) != end - self.at:
                raise FetchError(
                    f"asked for bytes {self.at} to {end}, got {len(self.held)}: the server reads no ranges"
                )
        found = self.held[self.at - self.start : end - self.start]
        self.at = end
        return found


class RemoteZip:
    """The pictures within a zip that is read in ranges. read must bear being called from several threads.

    Raises FetchError where it is no zip. Folders within the zip do not count: a picture is found by its file name.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, name: str):
        self.window = Window(read, size)
        try:
            self.archive = zipfile.ZipFile(self.window)
        except zipfile.BadZipFile as error:
            raise FetchError(f"{name}: not a zip that can be read ({error})") from error
        entries = sorted((e for e in self.archive.infolist() if not e.is_dir()), key=lambda e: e.header_offset)
        ends = [e.header_offset for e in entries[1:]] + [self.archive.start_dir]
        self.places = {Path(e.filename).name: (e, end) for e, end in zip(entries, ends)}

    def names(self) -> list[str]:
        """File names in the order in which they lie in the zip."""
        return list(self.places)

    def runs(self, names: Iterable[str]) -> list[list[str]]:
        """The wanted names, grouped into those that one request brings."""
        runs: list[list[str]] = []
        start = end = 0
        for name in sorted(names, key=lambda n: self.places[n][0].header_offset):
            entry, after = self.places[name]
            if runs and entry.header_offset - end <= GAP and after - start <= RUN:
                runs[-1].append(name)
            else:
                runs.append([name])
                start = entry.header_offset
            end = after
        return runs

    def into(self, folder: Path, names: list[str], tally: Tally, progress: Callable[[int], None]) -> None:
        """Write the named pictures that are not there yet. Missing ones are counted; `progress(n)`: n more are done."""
        for name in [n for n in names if n not in self.places]:
            tally.lost(name, "not in the zip")
        wanted = [n for n in names if n in self.places and not (folder / n).exists()]
        progress(len(names) - len(wanted))

        def bring(run):
            start, end = self.places[run[0]][0].header_offset, self.places[run[-1]][1]
            data = self.window.fetch(start, end)
            if len(data) != end - start:
                raise FetchError(f"asked for {end - start} bytes, got {len(data)}: the server reads no ranges")
            return start, data

        for run, coming in ahead(bring, self.runs(wanted)):
            self.window.hold(*coming.result())
            for name in run:
                try:
                    keep(self.archive.read(self.places[name][0]), folder / name)
                except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError) as error:
                    tally.lost(name, str(error))
                progress(1)


def one_by_one(base: str, folder: Path, names: list[str], tally: Tally, progress: Callable[[int], None]) -> None:
    """Write base/NAME for every name that is not there yet, several at a time.

    A picture that the server has not is counted; a server that cannot be reached is a FetchError.
    """
    import httpx

    wanted = [n for n in names if not (folder / n).exists()]
    progress(len(names) - len(wanted))
    with httpx.Client(timeout=30, follow_redirects=True) as client:

        def bring(name):
            for attempt in range(TRIES):
                if attempt:
                    time.sleep(PATIENCE * 2 ** (attempt - 1))
                try:
                    answer = client.get(f"{base}/{name}")
                except httpx.TransportError as error:
                    why = error
                    continue
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
                why = f"status {answer.status_code}"
            raise FetchError(f"{base}/{name}: cannot be fetched ({why}); the same command goes on where it stopped")

        for name, coming in ahead(bring, wanted):
            answer = coming.result()
            try:
                if answer.status_code != 200:
                    raise ValueError(f"status {answer.status_code}")
                if len(answer.content) > LARGEST:
                    raise ValueError(f"{len(answer.content)} bytes")
                keep(answer.content, folder / name)
            except ValueError as error:
                tally.lost(name, str(error))
            progress(1)
