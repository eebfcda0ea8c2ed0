"""Nonsense in the environment is one line, whichever command meets it."""

import pytest

from stdiff.cli.main import main
from stdiff.runtime.environment import check_environment, check_launched, world_size
from stdiff.runtime.errors import InputError


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SOURCE_DATE_EPOCH"])
@pytest.mark.parametrize("value", ["", "two", "-1", "1.5", " 3", "1_0", "٣", "nan", "9" * 30])
def test_nonsense_is_refused_in_one_line(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    assert main(["masks", "sample", "--count", "1", "--out", "/nowhere/at/all"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"stdiff: error: {name}={value} in the environment: expected ")
    assert len(said.splitlines()) == 1


def test_sense_is_taken(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_environment()
    assert world_size() == 4
    monkeypatch.setenv("WORLD_SIZE", "0")
    with pytest.raises(InputError, match="a whole number from 1 on"):
        check_environment()


def test_a_world_without_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in (("RANK", "0"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29500")):
        monkeypatch.setenv(name, value)
    check_launched()
    for name, value, said in [
        ("RANK", "2", "RANK=2 .*from 0 to 1"),
        ("MASTER_PORT", "http", "MASTER_PORT=http"),
        ("MASTER_ADDR", "", "WORLD_SIZE is 2, but MASTER_ADDR not set"),
    ]:
        with monkeypatch.context() as here:
            here.setenv(name, value)
            with pytest.raises(InputError, match=said):
                check_launched()
