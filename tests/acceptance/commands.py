"""The commands as a person runs them: a process, its exit code, what it printed."""

import subprocess
import sys


def module(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m NAME WORDS` to its end."""
    command = [sys.executable, "-m", name, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def fedqueue(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `fedqueue WORDS` to its end."""
    return module("deploy.cli", *words)
