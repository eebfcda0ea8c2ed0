"""Errors of the operating system: the file and the reason in one line."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from stdiff.runtime.errors import InputError, NotWritten, os_error_line, writing

OUT = Path("results/table.parquet")


def line_of(error, inside=None):
    with pytest.raises(OSError) as raised, writing(OUT, inside):
        raise error
    return os_error_line(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "Error writing bytes to file. Detail: ...", str(OUT)),
        OSError(errno.ENOSPC, "", "results"),
        OSError(errno.ENOSPC, "", b"results/.table.parquet.partial/0/table.parquet"),
        NotWritten(errno.ENOSPC, "", "results/.table.parquet.partial/0/table.parquet"),
        # As safetensors says it.
        Exception("I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_is_written_is_named_as_the_user_knows_it(error):
    said = line_of(error, Path("results/.table.parquet.partial"))
    assert said == f"{OUT}: cannot be written (No space left on device)"


def test_a_file_that_is_read_meanwhile_keeps_its_name():
    assert line_of(PermissionError(errno.EACCES, "", "raw")) == (
        "raw: cannot be read (Permission denied)"
    )
    assert line_of(NotWritten(errno.EROFS, "", "other.json")) == (
        "other.json: cannot be written (Read-only file system)"
    )


def test_an_error_without_a_number_keeps_its_text():
    assert line_of(OSError("encoder error -2")) == f"{OUT}: cannot be written (encoder error -2)"
    assert os_error_line(OSError("no such thing")) == "no such thing"


def test_other_errors_pass():
    for error in (InputError("see (os error 2)"), RuntimeError("no number")):
        with pytest.raises(type(error)), writing(OUT):
            raise error


def test_the_error_of_a_worker_process_arrives_whole():
    error = pickle.loads(pickle.dumps(NotWritten(errno.EIO, os.strerror(errno.EIO), "a")))
    assert os_error_line(error) == "a: cannot be written (Input/output error)"
