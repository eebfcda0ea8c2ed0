import hashlib
import http.server
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import pytest

from stdiff.datasets.bus_bra import read as read_bus_bra
from stdiff.datasets.busi import read as read_busi
from stdiff.fetching import archives
from stdiff.fetching.download import _HttpOnly, download
from stdiff.fetching.fetch import fetch, fetch_source
from stdiff.fetching.sources import SOURCES, Checksum, SourceFile
from stdiff.runtime.errors import NotWritten
from stdiff.runtime.files import InputError

BODY = random.Random(7).randbytes(400_000)


@dataclass
class Host:
    """What the loopback server does, and the Range headers it was asked for."""

    body: bytes = BODY
    etag: str | None = '"one"'
    last_modified: str | None = None
    heeds_range: bool = True
    heeds_if_range: bool = True
    states_length: bool = True
    status: int = 200
    content_type: str = "application/zip"
    redirect: str | None = None
    break_off_after: int | None = None  # bytes of the body, counted from its beginning
    stall_after: int | None = None
    address: str = ""
    ranges: list[str | None] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    host: Host

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        host = self.host
        asked = self.headers.get("Range")
        host.ranges.append(asked)
        if host.redirect:
            self.send_response(302)
            self.send_header("Location", host.redirect)
            self.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and host.heeds_range else 0
        same = self.headers.get("If-Range") in (host.etag, host.last_modified)
        if host.heeds_if_range and not same:
            start = 0
        if start and start >= len(host.body):
            self.send_error(416)
            return
        self.send_response(206 if start else host.status)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(host.body) - 1}/{len(host.body)}"
            )
        if host.states_length:
            self.send_header("Content-Length", str(len(host.body) - start))
        self.send_header("Content-Type", host.content_type)
        for name, value in (("ETag", host.etag), ("Last-Modified", host.last_modified)):
            if value:
                self.send_header(name, value)
        self.end_headers()
        end = host.break_off_after or host.stall_after or len(host.body)
        self.wfile.write(host.body[start:end])
        if host.stall_after:
            self.wfile.flush()
            host.end.wait(10)


@pytest.fixture
def host():
    host = Host()
    handler = type("OneHandler", (Handler,), {"host": host})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    host.address = f"http://127.0.0.1:{server.server_port}/x.zip"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield host
    host.end.set()
    server.shutdown()
    server.server_close()
    thread.join()


def file_of(host: Host, **changes) -> SourceFile:
    return replace(SourceFile("x.zip", host.address), **changes)


def md5(data: bytes, published: bool = True) -> tuple[Checksum, ...]:
    return (Checksum("md5", (hashlib.md5(data).hexdigest(),), published),)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def broken_off(host: Host, folder: Path, after: int = 150_000) -> str:
    host.break_off_after = after
    with pytest.raises(InputError) as caught:
        download(file_of(host), folder)
    host.break_off_after = None
    assert (folder / "x.zip.part").read_bytes() == host.body[:after]
    assert not (folder / "x.zip").exists()
    return str(caught.value)


# --- one file -------------------------------------------------------------------------------


def test_download_is_whole_and_leaves_nothing_else(host, tmp_path, capsys):
    got = download(file_of(host, size_bytes=len(BODY), checksums=md5(BODY)), tmp_path)
    assert got.path.read_bytes() == BODY
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert names(tmp_path) == ["x.zip"]
    assert (
        f"MD5 {hashlib.md5(BODY).hexdigest()}, as its host publishes it" in capsys.readouterr().out
    )
    download(file_of(host), tmp_path)
    assert len(host.ranges) == 1, "what is there is not fetched again"


def test_unknown_checksum_is_said_and_printed(host, tmp_path, capsys):
    download(file_of(host), tmp_path)
    out = capsys.readouterr().out
    assert "publishes no checksum to compare with" in out
    assert hashlib.sha256(BODY).hexdigest() in out


def test_break_off_is_told_and_the_same_command_goes_on(host, tmp_path):
    message = broken_off(host, tmp_path)
    assert "broke off after 150000 of 400000 bytes" in message
    assert "run the same command again to resume" in message
    assert download(file_of(host), tmp_path).path.read_bytes() == BODY
    assert host.ranges == [None, "bytes=150000-"]


def test_goes_on_by_date_where_the_etag_is_weak(host, tmp_path):
    host.etag, host.last_modified = 'W/"one"', "Wed, 21 Oct 2015 07:28:00 GMT"
    broken_off(host, tmp_path)
    assert download(file_of(host), tmp_path).path.read_bytes() == BODY
    assert host.ranges[-1] == "bytes=150000-"


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_starts_anew_where_nothing_shows_that_the_file_is_the_same(host, tmp_path, etag):
    host.etag = etag
    assert "it starts from the beginning" in broken_off(host, tmp_path)
    host.body = BODY[::-1]
    assert download(file_of(host), tmp_path).path.read_bytes() == host.body
    assert host.ranges == [None, None]


def test_server_without_ranges_starts_anew(host, tmp_path, capsys):
    broken_off(host, tmp_path)
    host.heeds_range = False
    assert download(file_of(host), tmp_path).path.read_bytes() == BODY
    assert "does not resume from byte 150000; starting anew" in capsys.readouterr().out


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("length", [400_000, 300_000, 100_000])
def test_file_that_changed_in_between_is_not_mixed(host, tmp_path, heeds_if_range, length):
    broken_off(host, tmp_path)
    host.body, host.etag = BODY[::-1][:length], '"two"'
    host.heeds_if_range = heeds_if_range
    assert download(file_of(host), tmp_path).path.read_bytes() == host.body
    assert names(tmp_path) == ["x.zip"]


def test_file_that_changes_twice(host, tmp_path):
    """The second break-off leaves a beginning of the second version, and a note that says so."""
    broken_off(host, tmp_path)
    host.body, host.etag = BODY[::-1], '"two"'
    broken_off(host, tmp_path, after=90_000)
    assert download(file_of(host), tmp_path).path.read_bytes() == host.body
    assert host.ranges[-1] == "bytes=90000-"


def test_part_of_another_address_is_not_gone_on_with(host, tmp_path):
    broken_off(host, tmp_path)
    other = file_of(host, address=host.address + "?version=2")
    assert download(other, tmp_path).path.read_bytes() == BODY
    assert host.ranges == [None, None]


def test_killed_between_last_byte_and_renaming(host, tmp_path):
    broken_off(host, tmp_path)
    (tmp_path / "x.zip.part").write_bytes(BODY)
    assert download(file_of(host), tmp_path).path.read_bytes() == BODY
    assert len(host.ranges) == 1


def test_kill_9_in_mid_transfer_then_the_rest(host, tmp_path):
    host.stall_after = 250_000
    command = (
        "import sys; from pathlib import Path; "
        "from stdiff.fetching.download import download; "
        "from stdiff.fetching.sources import SourceFile; "
        "download(SourceFile('x.zip', sys.argv[1]), Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", command, host.address, tmp_path])
    part = tmp_path / "x.zip.part"
    while not part.exists() or not part.stat().st_size:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept <= 250_000 and not (tmp_path / "x.zip").exists()
    host.stall_after = None
    assert download(file_of(host), tmp_path).path.read_bytes() == BODY
    assert host.ranges == [None, f"bytes={kept}-"]


def test_wrong_checksum_is_refused_and_the_next_run_starts_anew(host, tmp_path):
    file = file_of(host, checksums=md5(b"else"))
    with pytest.raises(InputError) as caught:
        download(file, tmp_path)
    assert hashlib.md5(BODY).hexdigest() in str(caught.value)
    assert f"expected {hashlib.md5(b'else').hexdigest()}" in str(caught.value)
    assert names(tmp_path) == ["x.zip.refused"]
    host.body = b"else"
    assert download(file, tmp_path).path.read_bytes() == b"else"


def test_checksum_that_others_recorded_is_told_and_not_enforced(host, tmp_path, capsys):
    download(file_of(host, checksums=md5(b"else", published=False)), tmp_path)
    assert "differs from" in capsys.readouterr().out


def test_any_copy_that_others_recorded_is_known(host, tmp_path, capsys):
    digests = (hashlib.md5(b"else").hexdigest(), hashlib.md5(BODY).hexdigest()[:8])
    download(file_of(host, checksums=(Checksum("md5", digests, published=False),)), tmp_path)
    said = capsys.readouterr().out
    assert "as others recorded it" in said and "differs from" not in said


def test_wrong_size_is_refused_before_anything_is_fetched(host, tmp_path):
    with pytest.raises(InputError, match="offers 400000 bytes, expected 5"):
        download(file_of(host, size_bytes=5), tmp_path)
    assert names(tmp_path) == []


def test_wrong_size_is_found_where_the_server_states_none(host, tmp_path):
    host.states_length = False
    with pytest.raises(InputError, match="after 400000 of 500000 bytes"):
        download(file_of(host, size_bytes=500_000), tmp_path)
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content_type": "text/html; charset=utf-8"}, "sent a web page"),
        ({"status": 202, "body": b""}, "status 202"),
        ({"status": 404}, "HTTP Error 404"),
        ({"status": 503}, "HTTP Error 503"),
    ],
)
def test_answer_that_is_not_the_file(host, tmp_path, changes, message):
    for name, value in changes.items():
        setattr(host, name, value)
    with pytest.raises(InputError, match=message):
        download(file_of(host), tmp_path)
    assert names(tmp_path) == []


def test_no_server(tmp_path):
    with pytest.raises(InputError, match="Connection refused"):
        download(SourceFile("x.zip", "http://127.0.0.1:1/x.zip"), tmp_path)


@pytest.mark.parametrize("scheme", ["file://", "ftp://localhost", "data:,", "/"])
def test_only_http_addresses(host, tmp_path, scheme):
    secret = tmp_path / "secret"
    secret.write_text("not to be read")
    address = f"{scheme}{secret}"
    with pytest.raises(InputError, match="only https and http addresses are fetched"):
        download(SourceFile("x.zip", address), tmp_path)
    host.redirect = address if ":" in address else f"file:{address}"
    with pytest.raises(InputError, match="only https and http|not allowed"):
        download(file_of(host), tmp_path)
    assert names(tmp_path) == ["secret"]


def test_redirect_may_not_leave_https():
    request = urllib.request.Request("https://a.org/x.zip")
    with pytest.raises(InputError, match="only https addresses"):
        _HttpOnly().redirect_request(request, None, 302, "", {}, "http://a.org/x.zip")
    assert _HttpOnly().redirect_request(request, None, 302, "", {}, "https://b.org/y.zip")


def test_full_disk_is_foreseen(host, tmp_path, monkeypatch):
    usage = type(archives.shutil.disk_usage("/"))(100, 95, 5)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"to download x.zip takes 0.00 GB"):
        download(file_of(host), tmp_path)
    assert names(tmp_path) == []


# --- a collection ---------------------------------------------------------------------------


def zipped(folder: Path, archive: Path, top: str) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*")):
            out.write(path, Path(top) / path.relative_to(folder))
    return archive


@pytest.fixture
def bra_zip(bus_bra, tmp_path):
    return zipped(bus_bra, tmp_path / "BUSBRA.zip", "BUSBRA")


def unpinned(collection: str):
    """The table's entry without the sizes and checksums of the real archive."""
    source = SOURCES[collection]
    files = tuple(SourceFile(f.name, f.address) for f in source.files)
    return replace(source, files=files)


def served(host: Host, archive: Path):
    host.body = archive.read_bytes()
    file = SourceFile("BUSBRA.zip", host.address, len(host.body), md5(host.body))
    return replace(SOURCES["bus_bra"], files=(file,))


def test_fetched_collection_is_read_like_the_original(host, bus_bra, bra_zip, tmp_path, capsys):
    to = tmp_path / "to"
    folder = fetch_source(served(host, bra_zip), to)
    assert folder == to / "BUSBRA"
    cases, problems = read_bus_bra(to)
    assert not problems
    assert [case.case_id for case in cases] == [c.case_id for c in read_bus_bra(bus_bra)[0]]
    out = capsys.readouterr().out
    assert "licence: LICENSE.txt in the archive" in out
    assert "doi:10.1002/mp.16812" in out
    assert names(to) == [".BUSBRA.source.json", "BUSBRA", "BUSBRA.zip"]


def test_same_command_again_says_it_is_there(host, bra_zip, tmp_path, capsys):
    source = served(host, bra_zip)
    fetch_source(source, tmp_path / "to")
    capsys.readouterr()
    fetch_source(source, tmp_path / "to")
    out = capsys.readouterr().out
    assert "already fetched" in out and "licence:" in out and "cite:" in out
    assert len(host.ranges) == 1


def test_broken_off_fetch_goes_on(host, bra_zip, tmp_path):
    source = served(host, bra_zip)
    host.break_off_after = 1000
    with pytest.raises(InputError) as caught:
        fetch_source(source, tmp_path / "to")
    assert "run the same command again to resume" in str(caught.value)
    assert "stdiff fetch bus_bra --to" in str(caught.value)
    assert "--archive BUSBRA.zip" in str(caught.value)
    host.break_off_after = None
    fetch_source(source, tmp_path / "to")
    assert host.ranges == [None, "bytes=1000-"]
    assert read_bus_bra(tmp_path / "to")[0]


@pytest.mark.parametrize("top", ["", "BUSBRA", "any title/BUSBRA"])
def test_own_archive_whatever_its_top_folder(bus_bra, tmp_path, top):
    archive = zipped(bus_bra, tmp_path / "renamed.ZIP", top)
    fetch_source(unpinned("bus_bra"), tmp_path / "to", [archive])
    assert len(read_bus_bra(tmp_path / "to")[0]) == len(read_bus_bra(bus_bra)[0])
    assert archive.is_file()


def test_archive_packed_anew_is_refused_where_a_checksum_is_published(bra_zip, tmp_path):
    with pytest.raises(InputError) as caught:
        fetch("bus_bra", tmp_path / "to", [bra_zip])
    message = str(caught.value)
    assert f"{bra_zip.stat().st_size} bytes, expected 133917740" in message
    assert "unpack it by hand" in message
    assert names(tmp_path / "to") == []


def test_busi_packed_anew_is_taken_as_its_host_publishes_no_checksum(busi, tmp_path, capsys):
    """The copy most people have is a mirror's, never the original archive byte for byte."""
    archive = zipped(busi, tmp_path / "archive.zip", busi.name)
    fetch("busi", tmp_path / "to", [archive])
    assert "differs from b2ce09f6" in capsys.readouterr().out
    assert read_busi(tmp_path / "to")[0]


def test_existing_folder_is_refused(bra_zip, tmp_path):
    (tmp_path / "to" / "BUSBRA").mkdir(parents=True)
    with pytest.raises(InputError, match="exists already, but no finished"):
        fetch_source(unpinned("bus_bra"), tmp_path / "to", [bra_zip])
    assert names(tmp_path / "to") == ["BUSBRA"]


@pytest.fixture
def breast_files(tmp_path):
    archive = tmp_path / "mine.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for name in ("case001.png", "case001_tumor.png"):
            out.writestr(f"BrEaST-Lesions_USG-images_and_masks/{name}", b"png")
    table = tmp_path / "mine.xlsx"
    table.write_bytes(b"a table")
    return archive, table


def test_breast_table_lies_beside_its_folder(breast_files, tmp_path):
    to = tmp_path / "to"
    folder = fetch("breast", to, breast_files[::-1])
    assert names(folder) == ["case001.png", "case001_tumor.png"]
    table = to / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx"
    assert table.read_bytes() == b"a table"
    record = json.loads((to / f".{folder.name}.source.json").read_text())
    assert record["sha256"][table.name] == hashlib.sha256(b"a table").hexdigest()


def test_breast_without_its_table_is_refused(breast_files, tmp_path):
    with pytest.raises(InputError, match=r"clinical-data-Dec-15-2023.xlsx: missing; give it"):
        fetch("breast", tmp_path / "to", breast_files[:1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["no.zip"], "no.zip: no such file"),
        (["x.rar"], "expected one .zip file for bus_bra"),
        (["BUSBRA.zip", "BUSBRA.zip"], "expected one .zip file for bus_bra"),
        (["a_folder"], "is a folder; .* stdiff harmonize bus_bra"),
    ],
)
def test_archive_that_cannot_be_meant(bra_zip, tmp_path, given, message):
    (tmp_path / "x.rar").write_bytes(b"")
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(InputError, match=message):
        fetch_source(unpinned("bus_bra"), tmp_path / "to", [tmp_path / name for name in given])


def test_no_address_says_where_to_ask_and_what_to_put_where(tmp_path):
    source = replace(SOURCES["bus_uclm"], files=(SourceFile("BUS-UCLM.zip", None),))
    with pytest.raises(InputError) as caught:
        fetch_source(source, tmp_path / "to")
    message = str(caught.value)
    for part in (source.landing_page, source.by_hand, source.licence, source.citation):
        assert part in message
    assert f"stdiff fetch bus_uclm --to {tmp_path / 'to'} --archive BUS-UCLM.zip" in message


def test_second_fetch_beside_a_running_one_is_refused(host, bra_zip, tmp_path):
    source = served(host, bra_zip)
    host.stall_after = 1000

    def first() -> None:
        with pytest.raises(InputError, match="broke off after 1000"):
            fetch_source(source, tmp_path / "to")

    running = threading.Thread(target=first)
    running.start()
    while not host.ranges:
        assert running.is_alive()
        time.sleep(0.005)
    with pytest.raises(InputError, match="another `stdiff fetch` is running here"):
        fetch_source(source, tmp_path / "to")
    host.end.set()
    running.join()
    assert (tmp_path / "to" / "BUSBRA.zip.part").stat().st_size == 1000


def test_unknown_collection(tmp_path):
    with pytest.raises(
        InputError, match="'bsui': unknown collection; expected one of breast, bus_bra"
    ):
        fetch("bsui", tmp_path)


def test_to_that_is_a_file(tmp_path):
    (tmp_path / "to").write_text("")
    with pytest.raises(NotWritten, match="File exists"):
        fetch("busi", tmp_path / "to")


# --- the table ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES.values(), ids=str)
def test_table_is_complete(source):
    assert re.search(r"doi:10\.\d{4,}/\S+", source.citation)
    assert source.licence and source.by_hand and source.second_hand
    assert source.landing_page.startswith("https://")
    assert sum(file.suffix == ".zip" for file in source.files) == 1
    lengths = {"md5": 32, "sha256": 64}
    for file in source.files:
        assert file.address is None or file.address.startswith("https://")
        for checksum in file.checksums:
            first, *others = checksum.hexdigests
            assert re.fullmatch(rf"[0-9a-f]{{{lengths[checksum.algorithm]}}}", first)
            # Only of a copy that others recorded the beginning is enough.
            for digest in others:
                assert re.fullmatch(r"[0-9a-f]{8,64}", digest) and not checksum.published


@pytest.mark.parametrize("collection", ["busi", "bus_bra", "bus_cot", "breast", "bus_uclm"])
def test_table_names_the_folder_that_the_reader_expects(collection):
    assert SOURCES[collection].folder == import_module(f"stdiff.datasets.{collection}").FOLDER
