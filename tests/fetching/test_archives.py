import io
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stdiff.fetching import archives
from stdiff.fetching.archives import Limits, unpack
from stdiff.runtime.files import InputError

HOLDS = ("Images", "data.csv")
FILES = {"Images/a.png": b"first", "Images/b.png": b"second", "data.csv": b"ID\na\nb\n"}


def packed(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            entry = zipfile.ZipInfo(prefix + name)
            entry.filename = prefix + name  # ZipInfo's own constructor would mend some names
            out.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(archive: Path, limits: Limits = archives.LIMITS) -> str:
    """The message; nothing but the archive may be left behind, seen or hidden."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(InputError) as caught:
        unpack(archive, archive.parent / "COLL", HOLDS, limits)
    assert sorted(archive.parent.rglob("*")) == before
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "COLL/", "some title/COLL/"])
def test_top_folder_is_found_wherever_it_is(tmp_path, prefix):
    archive = packed(tmp_path / "x.zip", FILES, prefix)
    done = unpack(archive, tmp_path / "COLL", HOLDS)
    assert contents(tmp_path / "COLL") == FILES
    assert (done.file_count, done.size_bytes) == (3, sum(map(len, FILES.values())))
    assert done.left_out == ()


def test_clutter_is_left_out_and_strangers_are_told(tmp_path):
    clutter = {
        "__MACOSX/COLL/Images/._a.png": b"x",
        "COLL/.DS_Store": b"x",
        "COLL/Images/._a.png": b"x",
        "COLL/Images/Thumbs.db": b"x",
    }
    files = {f"COLL/{name}": content for name, content in FILES.items()}
    archive = packed(tmp_path / "x.zip", {**clutter, **files, "README.txt": b"hello"})
    done = unpack(archive, tmp_path / "COLL", HOLDS)
    assert contents(tmp_path / "COLL") == FILES
    assert done.left_out == ("README.txt",)


def test_windows_backslashes_are_folders(tmp_path):
    windows = {name.replace("/", "\\"): content for name, content in FILES.items()}
    archive = packed(tmp_path / "x.zip", {"COLL\\Images\\": b"", **windows}, prefix="")
    unpack(archive, tmp_path / "COLL", HOLDS)
    assert contents(tmp_path / "COLL") == FILES


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/abs",
        "C:\\x",
        "c:/x",
        "a/../../x",
        "..\\x",
        "\\\\server\\share\\x",
        "Images/../../x",
    ],
)
def test_path_that_leads_out_is_refused(tmp_path, name):
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    message = refusal(packed(folder / "x.zip", {**FILES, name: b"evil"}))
    assert f"entry {name!r} leads out of the folder" in message
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "deeper", "x.zip"]


def test_unsafe_clutter_is_refused_too(tmp_path):
    assert "leads out" in refusal(packed(tmp_path / "x.zip", {**FILES, "../.DS_Store": b"x"}))


@pytest.mark.parametrize(
    ("kind", "what"),
    [(stat.S_IFLNK, "a symbolic link"), (stat.S_IFIFO, "a device"), (stat.S_IFCHR, "a device")],
)
def test_special_entry_is_refused(tmp_path, kind, what):
    archive = packed(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(archive, "a") as out:
        entry = zipfile.ZipInfo("Images/link")
        entry.external_attr = (kind | 0o777) << 16
        out.writestr(entry, "/etc/passwd")
    assert f"entry 'Images/link' is {what}" in refusal(archive)


def test_encrypted_entry_is_refused(tmp_path):
    archive = packed(tmp_path / "x.zip", FILES)
    raw = bytearray(archive.read_bytes())
    raw[raw.rfind(b"PK\x01\x02") + 8] |= 1  # flag of the last entry in the directory
    archive.write_bytes(raw)
    assert "entry 'data.csv' is encrypted" in refusal(archive)


def test_bomb_is_refused_before_it_is_written(tmp_path):
    archive = packed(tmp_path / "x.zip", {**FILES, "Images/zeros": bytes(20 * 2**20)})
    assert archive.stat().st_size < 2**16
    message = refusal(archive)
    assert "'Images/zeros'" in message and "compression bomb" in message


def test_bomb_of_many_small_files_is_refused(tmp_path):
    zeros = {f"Images/{n}": bytes(2**18) for n in range(40)}
    assert "compression bomb" in refusal(packed(tmp_path / "x.zip", {**FILES, **zeros}))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(entries=2), "3 entries; at most 2"),
        (Limits(file_bytes=5), "'Images/b.png'"),
        (Limits(total_bytes=10), "would unpack to 18"),
    ],
)
def test_limits(tmp_path, limits, message):
    assert message in refusal(packed(tmp_path / "x.zip", FILES), limits)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["Images/a.png", "Images/A.PNG"])
def test_name_that_stands_twice_is_refused(tmp_path, name):
    archive = packed(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr(name, b"other")
    assert f"entry {name!r} occurs twice, also as 'Images/a.png'" in refusal(archive)


def test_file_inside_a_file_is_refused(tmp_path):
    archive = packed(tmp_path / "x.zip", {**FILES, "data.csv/x": b""})
    assert "is below 'data.csv', which is a file" in refusal(archive)


def test_control_character_is_refused(tmp_path):
    archive = packed(tmp_path / "x.zip", {**FILES, "Images/a\nb": b""})
    assert "control characters" in refusal(archive)


def test_truncated_archive_is_refused(tmp_path):
    archive = packed(tmp_path / "x.zip", FILES)
    archive.write_bytes(archive.read_bytes()[:-40])
    assert "not a complete zip archive" in refusal(archive)


def test_damaged_entry_is_named(tmp_path):
    archive = packed(tmp_path / "x.zip", {**FILES, "Images/c.png": os.urandom(4000)})
    raw = bytearray(archive.read_bytes())
    at = raw.find(b"Images/c.png") + 500
    raw[at : at + 8] = b"\0" * 8
    archive.write_bytes(raw)
    assert "entry 'Images/c.png' is damaged" in refusal(archive)


@pytest.mark.parametrize("size_bytes", [1, 50])
def test_length_that_lies_is_refused(tmp_path, size_bytes):
    """The checksum alone does not tell: it may be that of the bytes that do come."""
    archive = packed(tmp_path / "x.zip", FILES)
    raw = bytearray(archive.read_bytes())
    stated = raw.rfind(b"PK\x01\x02") + 24
    raw[stated : stated + 4] = size_bytes.to_bytes(4, "little")
    archive.write_bytes(raw)
    assert "entry 'data.csv' is damaged" in refusal(archive)


def test_other_collection_is_refused(tmp_path):
    archive = packed(tmp_path / "x.zip", {"benign/a.png": b"", "malignant/b.png": b""})
    assert "no folder contains Images, data.csv; found benign, malignant" in refusal(archive)


def test_two_candidates_are_not_guessed_between(tmp_path):
    twice = {f"{top}/{name}": data for top in "AB" for name, data in FILES.items()}
    assert "A, B all contain Images, data.csv" in refusal(packed(tmp_path / "x.zip", twice))


def test_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "COLL").mkdir()
    (tmp_path / "COLL" / "mine").write_text("keep")
    assert "exists already" in refusal(packed(tmp_path / "x.zip", FILES))


def test_full_disk_is_foreseen(tmp_path, monkeypatch):
    archive = packed(tmp_path / "x.zip", FILES)
    usage = type(archives.shutil.disk_usage("/"))(100, 95, 5)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    assert "0.00 GB are free; free disk space" in refusal(archive)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_is_wrong_all_or_nothing(tmp_path, data):
    """Bytes flipped, cut off, put in: either the true files come out, or an InputError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in FILES.items():
            out.writestr(zipfile.ZipInfo(name), content)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 5))]
            case "insert":
                raw[at:at] = data.draw(st.binary(min_size=1, max_size=5))
    folder = tmp_path / "COLL"
    archive = tmp_path / "x.zip"
    archive.write_bytes(raw)
    try:
        unpack(archive, folder, HOLDS)
    except InputError:
        assert not folder.exists()
    else:
        assert set(contents(folder).values()) <= set(FILES.values())
        archives.shutil.rmtree(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


def test_killed_unpacking_leaves_no_folder_and_the_next_clears_up(tmp_path):
    files = {f"Images/{n}.png": os.urandom(3000) for n in range(3000)} | {"data.csv": b""}
    archive = packed(tmp_path / "x.zip", files)
    command = (
        "import sys; from pathlib import Path; "
        "from stdiff.fetching.archives import unpack; "
        f"unpack(Path(sys.argv[1]), Path(sys.argv[2]), {HOLDS})"
    )
    process = subprocess.Popen([sys.executable, "-c", command, archive, tmp_path / "COLL"])
    temporary = tmp_path / ".COLL.partial"
    while not any(temporary.rglob("*.png")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert temporary.is_dir() and not (tmp_path / "COLL").exists()
    unpack(archive, tmp_path / "COLL", HOLDS)
    assert contents(tmp_path / "COLL") == files
    assert not temporary.exists()


def test_interrupt_leaves_nothing(tmp_path, monkeypatch):
    archive = packed(tmp_path / "x.zip", FILES)

    def interrupted(path: Path, *args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "COLL", HOLDS)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]
