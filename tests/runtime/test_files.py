"""Files: whole or as before, whatever happens; images decoded with a limit."""

import itertools
import json
import os
import shutil
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from killing import STEP, killed_before

from stdiff.runtime.errors import NotWritten
from stdiff.runtime.files import (
    SEAL,
    InputError,
    atomic_write,
    differing_files,
    read_json,
    sealed,
    sha256_bytes,
    sha256_file,
    sha256_folder,
    unsealed,
    write_sums,
    write_text,
)
from stdiff.runtime.images import MAX_PIXELS, decode_png, encode_png, read_image


def test_a_file_appears_whole_and_alone(tmp_path):
    with atomic_write(tmp_path / "deep" / "table.parquet") as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".parquet"
        assert not (tmp_path / "deep" / "table.parquet").exists()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["table.parquet"]
    assert (tmp_path / "deep" / "table.parquet").read_text() == "new"


def test_a_folder_replaces_a_folder(tmp_path):
    target = tmp_path / "model"
    for name in ("old", "new"):
        with atomic_write(target) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_exception_leaves_what_was_there(tmp_path, kind):
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("before")
    else:
        target.mkdir()
        (target / "part").write_text("before")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        if kind == "file":
            temporary.write_text("half")
        else:
            temporary.mkdir()
            (temporary / "part").write_text("half")
        raise RuntimeError("disk full")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (target if kind == "file" else target / "part").read_text() == "before"


def test_writing_nothing_keeps_the_old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("before")
    with pytest.raises(NotWritten), atomic_write(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "kept").read_text() == "before"


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """A power cut after a rename must not leave an empty file under the right name."""
    events, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *p: (events.append("rename"), replace(*p)))
    write_text(tmp_path / "a.txt", "text")
    assert "rename" in events and events.index("sync") < events.index("rename")


def test_the_old_folder_stays_until_the_new_one_has_its_name(tmp_path, monkeypatch):
    """Whatever step it is interrupted at, both contents, or the new one in place, are there."""
    target, replace, rmtree, seen = tmp_path / "model", os.replace, shutil.rmtree, []

    def complete():
        return {path.read_text() for path in tmp_path.rglob("part") if path.is_file()}

    def watched(step):
        def run(*arguments, **options):
            before = (target / "part").read_text() if target.exists() else "none"
            seen.append((step.__name__, before, complete()))
            return step(*arguments, **options)

        return run

    for name in ("old", "new"):
        if name == "new":
            monkeypatch.setattr(os, "replace", watched(replace))
            monkeypatch.setattr(shutil, "rmtree", watched(rmtree))
        with atomic_write(target) as temporary:
            temporary.mkdir()
            (temporary / "part").write_text(name)
    assert complete() == {"new"}
    assert {step for step, _, _ in seen} == {"replace", "rmtree"}
    for _, in_place, contents in seen:
        assert in_place == "new" or contents == {"old", "new"}


def test_kill_9_leaves_one_whole_version(tmp_path):
    target = tmp_path / "numbers.txt"
    target.write_text("0\n" * 200)

    def write():
        with atomic_write(target) as temporary, temporary.open("w") as handle:
            for _ in range(200):
                sys.audit(STEP)
                handle.write("1\n")
                handle.flush()

    killed, steps = True, itertools.chain(range(1, 200, 17), itertools.count(200))
    while killed:
        killed = killed_before(next(steps), write)
        lines = target.read_text().splitlines()
        assert len(lines) == 200 and len(set(lines)) == 1
    assert lines[0] == "1"


def test_write_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Fréchet ≥ 0\n")
    assert (tmp_path / "a.txt").read_bytes().decode("utf-8") == "Fréchet ≥ 0\n"


def test_folder_hash_sees_names_and_contents_but_not_order(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, names in ((one, "ab"), (other, "ba")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
    assert sha256_folder(one) == sha256_folder(other)
    assert sha256_file(one / "a") == sha256_bytes(b"a")
    (other / "a").rename(other / "c")
    assert sha256_folder(one) != sha256_folder(other)


@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_png_is_lossless(grey_HW):
    assert np.array_equal(decode_png(encode_png(grey_HW)), grey_HW)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8)])
def test_only_8_bit_grey_is_encoded(bad):
    with pytest.raises(ValueError, match="2-D uint8"):
        encode_png(bad)


_PNG = encode_png(np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8))


# The last bytes are checksums and the end mark; without them all pixels are still there.
@given(st.integers(0, len(_PNG) - 40))
def test_truncated_images_are_refused(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("cut") / "cut.png"
    path.write_bytes(_PNG[:length])
    with pytest.raises(InputError, match=r"cut\.png: cannot be read as an image"):
        read_image(path)


@given(st.integers(0, len(_PNG) - 1), st.integers(0, 255))
def test_damaged_images_never_crash(tmp_path_factory, place, value):
    path = tmp_path_factory.mktemp("damaged") / "damaged.png"
    path.write_bytes(_PNG[:place] + bytes([value]) + _PNG[place + 1 :])
    try:
        image = read_image(path)
    except InputError as error:
        assert "damaged.png" in str(error)
    else:
        assert image.width * image.height <= MAX_PIXELS


def _png_of_size(width, height):
    """A PNG whose header promises more pixels than it holds."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )


# Above our limit, above Pillow's warning, above Pillow's error.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8001, 12_000, 60_000])
def test_huge_images_are_refused_before_they_are_decoded(tmp_path, side):
    path = tmp_path / "huge.png"
    path.write_bytes(_png_of_size(side, side))
    with pytest.raises(InputError, match=rf"huge\.png: .*pixels.* limit is {MAX_PIXELS}"):
        read_image(path)
    with pytest.raises(InputError, match=f"pixels.* limit is {MAX_PIXELS}"):
        decode_png(path.read_bytes())


def test_missing_files_and_text_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.png"):
        read_image(tmp_path / "none.png")
    (tmp_path / "note.png").write_text("not an image")
    with pytest.raises(InputError, match=r"note\.png: cannot be read as an image"):
        read_image(tmp_path / "note.png")


def test_sums_are_of_content_and_not_of_logs(tmp_path):
    for name, log in (("a", "12 images/s"), ("b", "13 images/s")):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "w").write_text("weights")
        (tmp_path / name / "train.jsonl").write_text(log)
        write_sums(tmp_path / name)
    assert sha256_folder(tmp_path / "a") == sha256_folder(tmp_path / "b")
    assert differing_files(tmp_path / "a") == []
    (tmp_path / "a" / "unet" / "w").write_text("Weights")
    assert differing_files(tmp_path / "a") == ["unet/w"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=4), st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_of_sealed_json_is_noticed_or_changes_no_value(values, place):
    values.pop(SEAL, None)
    content = bytearray(json.dumps(sealed(values), ensure_ascii=False).encode("utf-8", "replace"))
    whole = unsealed(json.loads(content))
    bit = int(place * 8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    try:
        found = unsealed(json.loads(content))
    except ValueError:
        return
    # A flip in the seal's own name leaves a key that no reader asks for.
    assert {key: found[key] for key in whole} == whole


def test_json_from_elsewhere_needs_no_seal(tmp_path):
    write_text(tmp_path / "a.json", '{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    write_text(tmp_path / "a.json", json.dumps(sealed({"a": 1})))
    assert read_json(tmp_path / "a.json") == {"a": 1}
    write_text(tmp_path / "a.json", json.dumps(sealed({"a": 1}) | {"a": 2}))
    with pytest.raises(InputError, match=r"a\.json: damaged JSON .*delete it and rerun"):
        read_json(tmp_path / "a.json")
