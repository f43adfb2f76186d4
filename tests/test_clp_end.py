"""The user's command at the end of the critical period."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from clprune.clp_end import MARK, run_once, words_of
from clprune.errors import UsageError

NOTE = "import os, sys; open(sys.argv[1], 'a').write(os.environ['CLPRUNE_RUN'] + ' ' + os.environ['CLPRUNE_END_EPOCH'] + ' ' + sys.argv[2] + chr(10))"


def test_it_runs_once_with_the_run_and_the_epoch_and_without_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    command = shlex.join([sys.executable, "-c", NOTE, str(tmp_path / "notes"), "$HOME; touch pwned"])
    for _ in range(2):
        assert run_once(command, Path("run"), 8) is None
    assert (tmp_path / "notes").read_text() == f"{tmp_path / 'run'} 8 $HOME; touch pwned\n"
    assert not (tmp_path / "pwned").exists()
    mark = json.loads((tmp_path / "run" / MARK).read_text())
    assert (mark["end_epoch"], mark["command"]) == (8, command)


@pytest.mark.parametrize(
    ("command", "said"), [("no-such-program-here", "could not be started"), (f"{sys.executable} -c 'raise SystemExit(3)'", "exit code 3")]
)
def test_a_command_that_fails_is_told_of_and_not_repeated(tmp_path: Path, command: str, said: str) -> None:
    told = run_once(command, tmp_path, 8)
    assert told is not None and said in told and "the run itself is complete" in told
    assert run_once(command, tmp_path, 8) is None


@pytest.mark.parametrize("command", ["", "  ", "echo 'open"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="--on-clp-end"):
        words_of(command)
