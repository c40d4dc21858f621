"""Progress on a terminal, in a log, and where there is none."""

import time

import pytest

from vgen_jax.files import progress as shown
from vgen_jax.files.progress import progress, sign_of_life


def test_progress_prints_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress(range(3), desc="quick")) == [0, 1, 2]
    assert capsys.readouterr().err == "", "what ends within the interval stays silent"
    monkeypatch.setattr(shown, "FIRST_LINE", 0.0)
    monkeypatch.setattr(shown, "LINE_EVERY", 0.0)
    with progress(total=3, desc="collect", unit="frames") as bar:
        for _ in range(3):
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("collect: 3/3") and not any("\r" in line for line in lines)
    monkeypatch.setattr(shown, "LINE_EVERY", 60.0)
    with progress(total=30, desc="collect", unit="frames") as bar:
        for _ in range(30):
            bar.update(1)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("collect: 0/30") or first.startswith("collect: 1/30")
    assert last.startswith("collect: 30/30") and "left" in first


def test_what_shows_no_progress_gives_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sign_of_life("convert"):
        time.sleep(0.05)
    assert capsys.readouterr().err == "", "what ends soon stays silent"
    monkeypatch.setattr(shown, "FIRST_LINE", 0.05)
    monkeypatch.setattr(shown, "LINE_EVERY", 0.1)
    with sign_of_life("convert"), sign_of_life("a stage of it"):
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5 and set(lines) == {"convert: 00:00 so far"}
    monkeypatch.setattr(shown, "LINE_EVERY", 60.0)
    with sign_of_life("train"), progress(total=9, desc="train") as bar:
        for _ in range(9):
            bar.update(1)
            time.sleep(0.03)
    assert not [line for line in capsys.readouterr().err.splitlines() if "so far" in line]


def test_progress_is_shown_by_the_first_process_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown, "is_main_process", lambda: False)
    monkeypatch.setattr(shown, "FIRST_LINE", 0.0)
    assert list(progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""
