"""A file is there whole or not at all."""

import os
from pathlib import Path
from stat import S_ISDIR

import pytest

from broker.files import written_whole


def test_what_was_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "made" / "a.txt"
    for text in ("first", "second"):
        with written_whole(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_if_writing_fails_the_file_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("first")
    with pytest.raises(TypeError), written_whole(path) as temporary:
        temporary.write_text(half())
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def half() -> str:
    raise TypeError


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "a.txt"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_who_is_reading_the_former_file_reads_it_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("first")
    with path.open() as reader:
        with written_whole(path) as temporary:
            temporary.write_text("second")
        assert reader.read() == "first"


def test_content_is_synced_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a.txt", list[tuple[bool, bool]]()
    monkeypatch.setattr("os.fsync", lambda one: seen.append((S_ISDIR(os.fstat(one).st_mode), path.exists())))
    with written_whole(path) as temporary:
        temporary.write_text("all")
    assert seen == [(False, False), (True, True)]
