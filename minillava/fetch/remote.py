"""Remote pictures into a folder, from a zip by range requests or one by one; none is fetched twice.

Of a zip of 6.5 GB only the directory and the wanted pictures are read, and neighbours come with one request. A picture
is written whole or not at all, so a stopped run can resume. Pictures that are missing or broken are counted, and too
many of them end the run (`MissingPictures`).

    with ZipFile(RemoteFile(read, size)) as archive: ...      # read(start, end) -> bytes of [start, end)
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
from minillava.files import atomic_write
from minillava.text import listed

MAX_REQUESTS = 8  # at a time
MAX_GAP, MAX_RUN = 64 << 10, 4 << 20  # bytes between two pictures of one request, and bytes per request
ATTEMPTS, FIRST_DELAY = 4, 1.0  # per request; seconds before the second attempt, doubled for each further one
MAX_PICTURE = 64 << 20  # bytes per picture
PATIENCE, LEAST_RATE = 60.0, 1024  # after so many seconds, a server that sent fewer bytes per second is given up
UNPACKED = {"accept-encoding": "identity"}  # the header that asks for the bytes as they are
Progress = Callable[[int], None]  # called with the number of pictures just done


class FetchError(UserError):
    """Data that cannot be fetched, or too many missing pictures; the message says what to do."""


class MissingPictures:
    """The pictures missing among `wanted` ones. limit: the share of them above which the run ends."""

    def __init__(self, wanted: int, limit: float):
        self.wanted, self.limit, self.reasons = wanted, limit, {}

    def add(self, name: str, why: str) -> None:
        """Count one. Raises FetchError, naming the first few, when there are too many."""
        self.reasons[name] = why
        if len(self.reasons) > self.limit * self.wanted:
            lines = [f"{name}: {why}" for name, why in self.reasons.items()]
            raise FetchError(
                f"{len(lines):,} of {self.wanted:,} pictures are missing, more than {self.limit:.1%} (--missing):\n"
                f"{listed(lines)}\nthe pictures fetched so far are kept; run the same command again to resume"
            )


def prefetch(work: Callable, items: Iterable, workers: int = MAX_REQUESTS) -> Iterator[tuple]:
    """(item, future of work(item)) in order; about `workers` items are in work or waiting to be used."""
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


def write_picture(data: bytes, path: Path) -> None:
    """Write a picture's bytes, whole or not at all. Raises ValueError when they are not a picture."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.verify()
    except Exception as error:  # Pillow's parsers raise errors of many kinds
        raise ValueError(f"not a picture ({str(error)[:80]})") from None
    with atomic_write(path, sync=False) as temporary:
        temporary.write_bytes(data)


def read_body(response, most: int) -> bytes:
    """The body of an httpx response that is streamed, or its first `most` + 1 bytes. Raises TimeoutError for a trickle."""
    data, start = bytearray(), time.monotonic()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) > most:
            break
        seconds = time.monotonic() - start
        if seconds > PATIENCE and len(data) < LEAST_RATE * seconds:
            raise TimeoutError(f"only {len(data):,} bytes in {seconds:.0f} seconds")
    return bytes(data[: most + 1])


class RemoteFile(io.RawIOBase):
    """A remote file that `zipfile` can read and seek in. read(start, end) -> the file's bytes in [start, end).

    It holds one stretch of the file: the last one read, or the one given to `hold`.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int):
        self.fetch, self.size, self.at, self.start, self.held = read, size, 0, 0, b""

    def hold(self, start: int, data: bytes) -> None:
        """Serve the next reads from `data`, the file's bytes from `start` on."""
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
                raise _no_ranges(end - self.at, len(self.held))
        found = self.held[self.at - self.start : end - self.start]
        self.at = end
        return found


def _no_ranges(wanted: int, got: int) -> FetchError:
    got = "more" if got > wanted else got
    return FetchError(f"asked for {wanted} bytes, got {got}: the server does not support range requests")


class RemoteZip:
    """The pictures in a zip that is read in ranges. `read` is called from several threads.

    A picture is found by its file name, whatever folder of the zip it is in. Raises FetchError when it is not a zip.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, name: str):
        self.file = RemoteFile(read, size)
        try:
            self.archive = zipfile.ZipFile(self.file)
        except zipfile.BadZipFile as error:
            raise FetchError(f"{name}: not a zip that can be read ({error})") from error
        files = sorted((e for e in self.archive.infolist() if not e.is_dir()), key=lambda e: e.header_offset)
        ends = [e.header_offset for e in files[1:]] + [self.archive.start_dir]
        self.entries = {Path(e.filename).name: (e, end) for e, end in zip(files, ends)}  # name -> (entry, its end)

    def names(self) -> list[str]:
        """File names in the order of the zip."""
        return list(self.entries)

    def runs(self, names: Iterable[str]) -> list[list[str]]:
        """The wanted names, grouped by request."""
        runs: list[list[str]] = []
        start = end = 0
        for name in sorted(names, key=lambda n: self.entries[n][0].header_offset):
            entry, after = self.entries[name]
            if runs and entry.header_offset - end <= MAX_GAP and after - start <= MAX_RUN:
                runs[-1].append(name)
            else:
                runs.append([name])
                start = entry.header_offset
            end = after
        return runs

    def extract(self, folder: Path, names: list[str], missing: MissingPictures, progress: Progress) -> None:
        """Write the named pictures that are not in the folder yet."""
        for name in [n for n in names if n not in self.entries]:
            missing.add(name, "not in the zip")
        wanted = [n for n in names if n in self.entries and not (folder / n).exists()]
        progress(len(names) - len(wanted))

        def request(run):
            start, end = self.entries[run[0]][0].header_offset, self.entries[run[-1]][1]
            data = self.file.fetch(start, end)
            if len(data) != end - start:
                raise _no_ranges(end - start, len(data))
            return start, data

        for run, future in prefetch(request, self.runs(wanted)):
            self.file.hold(*future.result())
            for name in run:
                try:
                    write_picture(self.archive.read(self.entries[name][0]), folder / name)
                except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError) as error:
                    missing.add(name, str(error))
                progress(1)


def download_each(base: str, folder: Path, names: list[str], missing: MissingPictures, progress: Progress) -> None:
    """Write the pictures base/NAME that are not in the folder yet, several at a time.

    A picture that the server does not have counts as missing. Raises FetchError when the server cannot be reached.
    """
    import httpx

    wanted = [n for n in names if not (folder / n).exists()]
    progress(len(names) - len(wanted))
    with httpx.Client(timeout=30, follow_redirects=True, headers=UNPACKED) as client:

        def request(name):
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(FIRST_DELAY * 2 ** (attempt - 1))
                try:
                    with client.stream("GET", f"{base}/{name}") as response:
                        status = response.status_code
                        if status < 500 and status != 429:
                            return status, read_body(response, MAX_PICTURE) if status == 200 else b""
                        why = f"status {status}"
                except (httpx.HTTPError, TimeoutError) as error:  # also for redirects in a circle
                    why = error
            raise FetchError(f"{base}/{name}: cannot be fetched ({why}); run the same command again to resume")

        for name, future in prefetch(request, wanted):
            status, data = future.result()
            try:
                if status != 200:
                    raise ValueError(f"status {status}")
                if len(data) > MAX_PICTURE:
                    raise ValueError(f"more than {MAX_PICTURE:,} bytes")
                write_picture(data, folder / name)
            except ValueError as error:
                missing.add(name, str(error))
            progress(1)
