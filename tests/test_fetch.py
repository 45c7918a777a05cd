"""Real data into a folder, from a stand-in of the hub with the same layout, and with the faults of a network."""

import io
import json
import random
import shutil
import time
import tracemalloc
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import huggingface_hub.constants
import pyarrow.parquet
import pytest
from stand_in import PAIRS, datasets, jpeg, record, stand_in

from minillava import cli
from minillava.data.scienceqa import read_problems
from minillava.data.valid import read_records
from minillava.fetch import hub, remote
from minillava.fetch.hub import HUB_DATASETS, Endpoints, fetch
from minillava.fetch.remote import FetchError, MissingPictures, RemoteFile, RemoteZip
from minillava.text import listed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return datasets(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def server(root, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(remote, "FIRST_DELAY", 0.01)
    with stand_in(root) as server:
        yield server


@pytest.fixture
def endpoints(server, tmp_path):
    return Endpoints(server.url, f"{server.url}/coco", tmp_path / "cache")


def ranges(server):
    return [path for path, wanted in server.asked if wanted and path.startswith("/far/")]


def test_pairs_are_fetched_from_the_remote_zip_without_the_rest_of_it(server, endpoints, root, tmp_path):
    seen, size = [], (root / HUB_DATASETS["pretrain"].repo / "images.zip").stat().st_size
    card = fetch("pretrain", tmp_path / "out", limit=70, endpoints=endpoints, progress=lambda *a: seen.append(a))
    records = read_records(tmp_path / "out" / "stage1.json")
    assert len(records) == card["records"] == 70 and seen[-1] == (70, 70)
    for r in records:
        assert (tmp_path / "out" / "images" / r["image"]).read_bytes() == jpeg(int(r["image"][10:19]))
    assert server.sent < 0.4 * size and len(ranges(server)) < 12  # 64 neighbours, 6 more, the directory
    assert len({int(r["image"][10:19]) // hub.RUN_LENGTH for r in records}) == 2
    asked = len(ranges(server))
    assert fetch("pretrain", tmp_path / "out", limit=70, endpoints=endpoints) == card
    assert len(ranges(server)) - asked <= 5  # the directory again, no picture
    another = fetch("pretrain", tmp_path / "other", limit=70, seed=5, endpoints=endpoints)
    assert another["records"] == 70 and read_records(tmp_path / "other" / "stage1.json") != records


def test_all_pairs_are_fetched_without_a_limit(server, endpoints, tmp_path):
    assert fetch("pretrain", tmp_path / "out", endpoints=endpoints)["pictures"] == PAIRS


def test_neighbours_share_a_request_and_distant_pictures_do_not(root, monkeypatch):
    data, asked = (root / HUB_DATASETS["pretrain"].repo / "images.zip").read_bytes(), []

    def read(start, end):
        asked.append((start, end))
        return data[start:end]

    archive = RemoteZip(read, len(data), "a zip")
    names = archive.names()
    assert archive.runs([names[5], names[3], names[4], names[-1]]) == [names[3:6], [names[-1]]]
    monkeypatch.setattr(remote, "MAX_RUN", 2 * len(data) // PAIRS)
    assert all(len(run) <= 3 for run in archive.runs(names)) and sum(archive.runs(names), []) == names


def test_a_broken_zip_and_a_server_without_ranges_are_refused(server, endpoints, tmp_path):
    with pytest.raises(FetchError, match="not a zip that can be read"):
        RemoteZip(lambda start, end: bytes(end - start), 1000, "broken.zip")
    server.ranges, server.handle_error = False, lambda *_: None  # a reset connection
    with pytest.raises(FetchError, match="range requests"):
        fetch("pretrain", tmp_path / "out", limit=5, endpoints=endpoints)


def test_a_remote_file_reads_like_a_local_one():
    data = random.Random(0).randbytes(1000)
    window, file, rng = RemoteFile(lambda a, b: data[a:b], 1000), io.BytesIO(data), random.Random(1)
    for _ in range(200):
        at, count = rng.randrange(1100), rng.choice([0, 1, 30, 700, -1])
        assert window.seek(at) == file.seek(at) and window.read(count) == file.read(count)
        assert window.tell() == file.tell() or at > 1000


@pytest.mark.parametrize("source", ["pretrain", "instruct", "scienceqa"])
def test_another_revision_is_fetched_and_named_in_the_card(server, endpoints, root, tmp_path, source):
    home = root / HUB_DATASETS[source].repo
    old = home.with_name(f"{home.name}@refs_pr_1")
    shutil.copytree(home, old)
    for path in old.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())[:3]))
    for path in old.rglob("*.parquet"):
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 1), path)
    for path in home.glob("images.zip"):  # so that the other one is asked for
        path.rename(root / "away.zip")
    try:
        older = replace(endpoints, revision="refs/pr/1")
        card = fetch(source, tmp_path / "out", endpoints=older)
        assert card["records"] == (1 if source == "scienceqa" else 3) and card["revision"] == "refs/pr/1"
    finally:
        shutil.rmtree(old)
        if source == "pretrain":
            (root / "away.zip").rename(home / "images.zip")
    with pytest.raises(FetchError, match=home.name):
        fetch(source, tmp_path / "none", endpoints=replace(endpoints, revision="nothing"))


def test_coco_is_fetched_picture_by_picture_and_resumes(server, endpoints, tmp_path):
    out = tmp_path / "out"
    card = fetch("instruct", out, part="detail", limit=10, endpoints=endpoints)
    assert card["records"] == card["pictures"] == 10 and len(list((out / "images").iterdir())) == 10
    (gone, *_) = (out / "images").iterdir()
    gone.unlink()
    server.asked.clear()
    fetch("instruct", out, part="detail", limit=10, endpoints=endpoints)
    assert [path for path, _ in server.asked if path.startswith("/coco")] == [f"/coco/{gone.name}"] and gone.exists()


def test_a_failing_server_is_asked_again(server, endpoints, tmp_path):
    server.broken["/coco/000000000003.jpg"] = 3
    assert fetch("instruct", tmp_path / "out", endpoints=endpoints)["pictures"] == 40
    server.broken["/coco/000000000003.jpg"] = 4
    with pytest.raises(FetchError, match="status 503"):
        fetch("instruct", tmp_path / "other", endpoints=endpoints)
    assert not (tmp_path / "other" / "stage2.json").exists()
    assert fetch("instruct", tmp_path / "other", endpoints=endpoints)["pictures"] == 40


def test_a_zip_that_becomes_unreachable_is_named_and_its_pictures_are_kept(server, endpoints, tmp_path, monkeypatch):
    extract = RemoteZip.extract

    def break_and_extract(*args):
        server.broken[f"/far/{HUB_DATASETS['pretrain'].repo}/images.zip"] = 99
        extract(*args)

    monkeypatch.setattr(RemoteZip, "extract", break_and_extract)
    with pytest.raises(FetchError, match="images.zip: cannot be fetched .*503"):
        fetch("pretrain", tmp_path / "out", limit=70, endpoints=endpoints)
    with pytest.raises(FetchError, match="images.zip: cannot be fetched"):  # before its directory is read
        fetch("pretrain", tmp_path / "out", limit=70, endpoints=endpoints)
    server.broken.clear()
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert fetch("pretrain", tmp_path / "out", limit=70, endpoints=endpoints)["pictures"] == 70


@pytest.mark.parametrize("source", HUB_DATASETS)
def test_without_a_network_the_file_is_named(source, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(FetchError, match=f"{HUB_DATASETS[source].repo}/.*: cannot be fetched"):
        fetch(source, tmp_path / "out", endpoints=Endpoints(nowhere, nowhere, tmp_path / "cache"))


def test_missing_pictures_are_counted_and_left_out_up_to_a_limit(server, endpoints, root, tmp_path):
    away, page = root / "coco" / "000000000007.jpg", root / "coco" / "000000000009.jpg"
    before = {p: p.read_bytes() for p in (away, page)}
    try:
        away.unlink()
        page.write_text("<html>not found</html>")
        card = fetch("instruct", tmp_path / "out", missing=0.05, endpoints=endpoints)
        assert card["records"] == card["pictures"] == 38
        assert card["missing pictures"].keys() == {away.name, page.name}
        assert "404" in card["missing pictures"][away.name] and "not a picture" in card["missing pictures"][page.name]
        kept = {r["image"] for r in read_records(tmp_path / "out" / "stage2.json")}
        assert len(kept) == 38 and away.name not in kept
        with pytest.raises(FetchError, match=r"2 of 40 pictures are missing, more than 4.0%(.|\n)*000000000007"):
            fetch("instruct", tmp_path / "other", missing=0.04, endpoints=endpoints)
        assert not (tmp_path / "other" / "stage2.json").exists()
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def test_scienceqa_becomes_records_with_and_without_pictures(server, endpoints, tmp_path):
    card = fetch("scienceqa", tmp_path / "out", endpoints=endpoints)
    records = read_records(tmp_path / "out" / "stage2.json")
    assert card["records"] == 3 and card["pictures"] == 2 and [("image" in r) for r in records] == [True, False, True]
    assert (tmp_path / "out" / "images" / records[0]["image"]).read_bytes() == jpeg(1)
    assert "###\nANSWER: B." in records[0]["conversations"][1]["value"]
    problems = read_problems(tmp_path / "out", "train")  # what `minillava answer` and `minillava judge scienceqa` read
    assert [p.id for p in problems.values()] == [r["id"] for r in records] and problems[records[0]["id"]].letter == "B"
    for seed in range(4):
        folder = tmp_path / str(seed)
        card = fetch("scienceqa", folder, limit=1, seed=seed, endpoints=endpoints)
        (chosen,) = read_records(folder / "stage2.json")
        assert card["pictures"] == len(list((folder / "images").iterdir())) == ("image" in chosen)
        assert list(read_problems(folder)) == [chosen["id"]]


def test_a_broken_picture_in_the_parquet_is_counted(server, endpoints, root, tmp_path):
    file = next((root / HUB_DATASETS["scienceqa"].repo / "data").glob("train-*"))
    before, table = file.read_bytes(), pyarrow.parquet.read_table(file).to_pylist()
    try:
        table[2]["image"] = {"bytes": b"no picture", "path": "image.png"}
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), file)
        card = fetch("scienceqa", tmp_path / "out", missing=0.5, endpoints=endpoints)
        assert list(card["missing pictures"]) == ["train-2/image.png"] and card["records"] == 2
        with pytest.raises(FetchError, match="1 of 2 pictures are missing"):
            fetch("scienceqa", tmp_path / "other", endpoints=endpoints)
    finally:
        file.write_bytes(before)


def test_wrong_names_and_an_unreachable_hub_are_errors(tmp_path, endpoints, root, monkeypatch):
    next(root.rglob("test-*.parquet")).unlink()
    for arguments, said in (
        (("nothing",), "there are: pretrain, instruct, scienceqa"),
        (("instruct", tmp_path, "train"), "there are: all, conversation, detail, complex"),
        (("scienceqa", tmp_path, "test"), "0 files are named data/test"),
        (("instruct", tmp_path, None, 0), "at least 1"),
    ):
        with pytest.raises(FetchError, match=said):
            fetch(*(arguments if len(arguments) > 1 else (*arguments, tmp_path)), endpoints=endpoints)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert cli.main(["fetch", "instruct", "--out", str(tmp_path / "out")]) == 2


def test_the_command_fills_a_folder_and_reports_what_it_left_out(server, root, tmp_path, monkeypatch, capsys):
    served = server.url, f"{server.url}/coco", tmp_path / "cache"
    monkeypatch.setattr(hub, "Endpoints", lambda revision: Endpoints(*served, revision))
    file = root / HUB_DATASETS["instruct"].repo / "llava_instruct_150k.json"
    rows = json.loads(file.read_text())
    try:
        file.write_text(json.dumps([*rows, {"id": "bad"}, record("out", "../../etc/passwd")]))
        arguments = ["fetch", "instruct", "--out", str(tmp_path / "out"), "--missing", "0.05"]
        assert cli.main(arguments) == 0
        out = capsys.readouterr().out
        assert (
            "40 records and 40 pictures" in out
            and "list of turns" in out
            and "1  bad" in out
            and "outside the image folder" in out
        )
        assert cli.main([*arguments[:-1], "0.04"]) == 2
        assert "2 of 42 records break the format" in capsys.readouterr().err
    finally:
        file.write_text(json.dumps(rows))


def test_records_are_copied_one_at_a_time_so_memory_does_not_hold_the_file(tmp_path, monkeypatch):
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!" * 20_000}]
    rows, path = [{"id": str(n), "conversations": turns} for n in range(800)], tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    monkeypatch.setattr(hub, "download", lambda *a: path)
    tracemalloc.start()
    card = fetch("instruct", tmp_path / "some", limit=700)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = json.loads((tmp_path / "some" / "stage2.json").read_text())
    assert card["records"] == len(kept) == 700 and all(r in rows for r in kept[::50])
    assert [int(r["id"]) for r in kept] == sorted({int(r["id"]) for r in kept})
    assert peak < path.stat().st_size / 2


def test_a_file_that_is_not_a_list_of_records_is_named(tmp_path, monkeypatch):
    path = tmp_path / "rows.json"
    monkeypatch.setattr(hub, "download", lambda *a: path)
    for text, says in (("{}", "begins with one object"), ('[{"id": "a"', "not JSON after 0 records")):
        path.write_text(text)
        with pytest.raises(FetchError, match=rf"rows.json: {says}"):
            fetch("instruct", tmp_path / "out")


def test_the_first_eight_lines_are_listed_and_the_others_counted():
    lines = [str(n) for n in range(24)]
    assert listed(lines).count("\n") == 8 and listed(lines).endswith("and 16 more")
    assert listed([]) == "" and "more" not in listed(["one"])
    missing = MissingPictures(10, 0.2)
    missing.add("a", "x"), missing.add("b", "x")
    with pytest.raises(FetchError, match="3 of 10"):
        missing.add("c", "x")


class Unkind(BaseHTTPRequestHandler):
    """A server that never ends a picture, sends it byte by byte, or redirects in a circle."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        kind, server = self.path.strip("/").partition(".")[0], self.server
        self.send_response(302 if kind == "circle" else 200)
        self.send_header("Location", self.path)
        self.end_headers()
        try:
            while kind != "circle" and not server.ended:
                server.sent += self.wfile.write(b"\0" if kind == "trickle" else bytes(1 << 16))
                time.sleep(0.01 if kind == "trickle" else 0)
        except OSError:
            pass


@pytest.fixture
def unkind(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(remote, "PATIENCE", 0.2)
    monkeypatch.setattr(remote, "MAX_PICTURE", 1 << 20)
    with ThreadingHTTPServer(("127.0.0.1", 0), Unkind) as server:
        server.sent, server.ended, server.daemon_threads = 0, False, True
        server.handle_error = lambda *_: None  # a reset connection
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.ended = True
        server.shutdown()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "name, message",
    [
        ("endless.jpg", "endless.jpg: more than 1,048,576 bytes"),
        ("trickle.jpg", "trickle.jpg: cannot be fetched .only .* bytes in 0 seconds"),
        ("circle.jpg", "circle.jpg: cannot be fetched .*redirect"),
    ],
)
def test_a_server_without_end_is_given_up_and_little_is_read(unkind, tmp_path, name, message):
    base = f"http://127.0.0.1:{unkind.server_address[1]}"
    with pytest.raises(FetchError, match=message):
        remote.download_each(base, tmp_path, [name], MissingPictures(1, 0.0), lambda n: None)
    assert unkind.sent < 16 << 20 and not list(tmp_path.iterdir())  # the rest is in the sockets' buffers


def test_of_a_zip_without_ranges_no_more_than_was_asked_for_is_read(server, endpoints, tmp_path):
    server.ranges, server.handle_error = False, lambda *_: None  # a reset connection
    with pytest.raises(FetchError, match=r"asked for \d+ bytes, got more: the server does not support range"):
        fetch("pretrain", tmp_path / "out", limit=5, endpoints=endpoints)
