"""A file is there whole or not at all."""

from pathlib import Path

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
