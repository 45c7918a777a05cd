"""Files written whole or not at all; JSON and JSONL read with errors that name file and line.

A `FileError` means that a whole file cannot be used. An `Excluded` is one bad row: it is named, counted and left out,
so it neither stops an evaluation nor enters a mean. What a later run relies on is written with checksums
(`write_checked`), so that a file that a disk or a person has changed is noticed.

    python -c "from minillava.files import read_jsonl; print(read_jsonl('data_samples/caps_boxes.jsonl')[0]['id'])"
"""

import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minillava.errors import UserError

MAX_DEPTH = 100  # lists and objects inside each other in a JSON text
READ_CHUNK = 1 << 20  # characters read at a time
MAX_RECORD = 16 << 20  # characters per record
REPEATED = "\0repeated"  # marks an object whose file has a key twice with different values


class FileError(UserError):
    """A file that cannot be used, or files that do not fit together; the message names the file, line or question."""


@dataclass(frozen=True)
class Excluded:
    """One row that was left out: its name, and why."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


@contextmanager
def atomic_write(path: str | Path, sync: bool = True) -> Iterator[Path]:
    """Write a file or folder whole or not at all: `with atomic_write(path) as temporary: temporary.write_text(...)`.

    The temporary path is in the same folder and has the suffix of `path`. When the block ends, it replaces `path`; when
    the block raises, it is removed and `path` stays as it was. sync: first flush it to the disk, so that a power cut
    loses nothing; False for many small files that can be made again. Raises OSError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    try:
        yield temporary
        if sync:
            for inner in (*temporary.rglob("*"), temporary):
                flush_to_disk(inner)
        temporary.replace(path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.filename is None:  # Pillow's and a full disk's name no file
            if error.errno is None:  # numpy's has words alone, which a name would hide
                raise OSError(errno.EIO, str(error), str(path)) from error
            error.filename = str(path)
        raise
    if sync:
        flush_to_disk(path.parent)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def file_mark(path: Path) -> list[int] | None:
    """Numbers that change when a file does: its size, and the times of its content and of its entry. None: no file."""
    try:
        about = path.stat()
    except (OSError, ValueError):  # also for a name that cannot be one
        return None
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


def flush_to_disk(path: Path) -> None:
    """Return once this file or folder is on the disk (fsync). Windows flushes no folders, and a file only for a writer."""
    windows = not hasattr(os, "O_DIRECTORY")
    if windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system


def write_json(path: str | Path, value: object) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_jsonl(rows: Iterable[dict], path: str | Path) -> None:
    """Write rows as JSONL, whole or not at all."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not UTF-8 text ({error.reason})") from error


def parse_json(text: str, **hooks) -> object:
    """The value of a JSON text. hooks: of `json.loads`. Raises ValueError, also for a number of too many digits.

    And for deep nesting, which would end in a RecursionError wherever the value is used.
    """
    try:
        value = json.loads(text, **hooks)
        if not too_deep(value):
            return value
    except RecursionError:
        pass
    raise ValueError(f"lists or objects inside each other, more than {MAX_DEPTH} levels deep")


def too_deep(value: object) -> bool:
    """Whether lists and dicts are inside each other in more than `MAX_DEPTH` levels."""
    level = [[value]]
    for _ in range(MAX_DEPTH + 1):
        insides = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for inside in insides for inner in inside if isinstance(inner, dict | list)]
    return bool(level)


def read_jsonl(path: Path) -> list[dict]:
    """The rows of a JSONL file; blank lines are skipped. Raises FileError naming file and line."""
    rows = []
    for n, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise FileError(f"{path}, line {n}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise FileError(f"{path}, line {n}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def read_json(path: Path, **hooks) -> object:
    """The value in a JSON file. hooks: as in `parse_json`. Raises FileError naming it."""
    text = _text(path)
    try:
        return parse_json(text, **hooks)
    except ValueError as error:
        raise FileError(f"{path}: not JSON ({error})") from error


def each_value(path: Path, keys: tuple[str, ...], chunk: int = READ_CHUNK) -> Iterator:
    """The values of a JSON list, or of JSON lines, one by one, with one chunk or line in memory. Raises FileError.

    keys: the first of JSON lines is an object with one of these. A line that is not JSON comes as its text. An object
    whose file has a key twice, with different values, has the key REPEATED.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(chunk).lstrip()
            while not text and (more := file.read(chunk)):
                text = more.lstrip()
            if text.startswith("["):
                yield from _of_list(file, text, path, chunk)
            elif text.startswith("{"):
                file.seek(0)
                yield from _of_lines(file, path, keys)
            else:
                raise FileError(f"{path}: expected a JSON list of records, or one record per line")
    except UnicodeDecodeError as error:
        why = "UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else f"not UTF-8 ({error.reason})"
        raise FileError(f"{path}: not a JSON file: it is {why}; save it as UTF-8") from error


def _of_list(file, text: str, path: Path, chunk: int) -> Iterator:
    decoder, at, count = json.JSONDecoder(object_pairs_hook=_object), 1, 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip() or file.read(chunk).strip():
                raise FileError(f"{path}: more than one list; there is text after the first {count} records")
            return
        try:
            record, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:  # perhaps the record continues in the next chunk
            more = file.read(chunk) if len(text) - at <= MAX_RECORD else ""
            if not more:
                spot = getattr(error, "pos", at)
                where = f"after {count} records, at {text[max(at, spot - 40) : spot + 20]!r}"
                raise FileError(f"{path}: not JSON {where} ({getattr(error, 'msg', error)})") from error
            text, at = text[at:] + more, 0
            continue
        count += 1
        yield None if too_deep(record) else record


def _of_lines(file, path: Path, keys: tuple[str, ...]) -> Iterator:
    lines = (line for line in iter(lambda: file.readline(MAX_RECORD), "") if line.strip())
    held: list | None = []  # the values up to the first record, which may be bad ones
    for line in lines:
        try:
            value = parse_json(line, object_pairs_hook=_object)
        except ValueError:
            value = line
        if held is None:
            yield value
            continue
        held.append(value)
        if isinstance(value, dict) and any(key in value for key in keys):
            yield from held
            held = None
        elif len(held) == 100:
            break
    if held is not None:
        some = f"its keys are {', '.join(map(repr, held[0]))[:200]}" if isinstance(held[0], dict) else "over many lines"
        advice = "expected a JSON list of records, or one record per line; save the list of records alone"
        raise FileError(f"{path}: begins with one object ({some}); {advice}")


def _object(pairs: list[tuple]) -> dict:
    """A JSON object. Of a key that appears twice Python keeps the last value; where they differ, REPEATED says so."""
    found = dict(pairs)
    if len(found) < len(pairs) and any(found[key] != value for key, value in pairs):
        found[REPEATED] = True
    return found


def checksum(path: Path) -> int:
    """CRC-32 of a file: detects accidental damage, at several GB per second."""
    found = 0
    with open(path, "rb") as file:
        while some := file.read(1 << 16):
            found = zlib.crc32(some, found)
    return found


def write_checked(path: Path, value: dict, files: Iterable[Path] = ()) -> None:
    """Write a JSON object with checksums of itself and of these files, which are first flushed to the disk.

    The files must stay where they are, as seen from the folder of `path`.
    """
    sizes = {}
    for file in files:
        flush_to_disk(file)
        sizes[Path(os.path.relpath(file, path.parent)).as_posix()] = [file.stat().st_size, checksum(file)]
    value = value | {"files": sizes}
    write_json(path, value | {"checksum": _own_checksum(value)})


def read_checked(path: Path) -> dict:
    """The object that `write_checked` wrote. Raises FileError naming the file that is not as it was written."""
    value = read_json(path)
    if not isinstance(value, dict) or value.pop("checksum", None) != _own_checksum(value):
        raise FileError(f"{path}: not as it was written")
    for name, (size, found) in value.pop("files").items():
        file = path.parent / name
        if not file.is_file() or file.stat().st_size != size or checksum(file) != found:
            raise FileError(f"{file}: {'not as it was written' if file.exists() else 'missing'}")
    return value


def _own_checksum(value: dict) -> int:
    return zlib.crc32(json.dumps(value).encode())


def is_id(value: object) -> bool:
    """Whether this can be the id of a question or a picture: a number or a text. (True would be mistaken for 1.)"""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def by_key(rows: list[dict], path: Path, key: str) -> dict:
    """Rows by their `key`. Raises FileError for a row without it, for a value that is not an id, and for duplicates."""
    out = {}
    for n, row in enumerate(rows, 1):
        if key not in row:
            raise FileError(f"{path}, row {n}: no {key!r}; it has {', '.join(sorted(row)) or 'nothing'}")
        if not is_id(row[key]):
            raise FileError(f"{path}, row {n}: the {key} {str(row[key])[:60]} is neither a number nor a text")
        if row[key] in out:
            raise FileError(f"{path}: the {key} {row[key]!r} stands twice")
        out[row[key]] = row
    return out
