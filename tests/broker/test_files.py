"""A file is replaced whole or not at all, and a command that fails takes back what it has made."""

import errno
import os
from pathlib import Path
from stat import S_ISDIR

import pytest

from broker.errors import StorageError, UsageError
from broker.files import whole_or_nothing, write_file, written_whole


def full_disk(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_gets_its_bytes_and_mode_and_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"one", mode=0o600)
    write_file(path, b"two", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_must_not_be_replaced_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"one", replace=False)
    with pytest.raises(FileExistsError):
        write_file(path, b"two", replace=False)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"one"]


@pytest.mark.parametrize("replace", [True, False])
def test_a_full_disk_leaves_nothing_of_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match=r"^\S+/a could not be written: No space left on device\.$"):
        write_file(tmp_path / "a", b"one", replace=replace)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a", b"one")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError):
        write_file(tmp_path / "a", b"two")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"one"]


@pytest.mark.parametrize("path", [".", "/", "folder"])
def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="is a folder; name a file"):
        write_file(Path(path), b"one")


def fail_in(folder: Path) -> None:
    with whole_or_nothing(folder):
        (folder / "file").write_text("half")
        (folder / "models").mkdir()
        (folder / "models" / "0").write_text("half")
        raise UsageError("no")


def test_a_new_folder_goes_with_all_that_was_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no"):
        fail_in(tmp_path / "new" / "site")
    assert list(tmp_path.iterdir()) == []


def test_what_a_folder_held_before_stays(tmp_path: Path) -> None:
    (tmp_path / "broker.url").write_text("mine")
    with pytest.raises(UsageError, match="no"):
        fail_in(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["broker.url"]


def test_what_succeeds_stays_for_its_owner_alone(tmp_path: Path) -> None:
    with whole_or_nothing(tmp_path / "new"):
        (tmp_path / "new" / "file").write_text("whole")
    assert (tmp_path / "new" / "file").read_text() == "whole"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_folder_where_none_can_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match=r"^The folder \S+ cannot be used: Not a directory\.$"),
        whole_or_nothing(tmp_path / "file" / "site"),
    ):
        pytest.fail("it went on")


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
