"""METEOR 1.5 (Denkowski and Lavie 2014), from the Java program inside pycocoevalcap.

Knows how that program is asked, and that it is asked by one process for several captioners: it takes ten seconds to
start. Refuses to know how captions are standardised.
"""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from lcm.errors import LcmError, require

METEOR_TIMEOUT_S = 300.0  # seen for 1,000 images on two cores: 7 to 11 s to start, then 3 s

Captions = dict[int, list[str]]  # an image's place among all -> its standardised captions, as pycocoevalcap has it


class NoMeteorError(LcmError):
    """METEOR could not be computed; the message says why."""


def meteor(references: Captions, several: Sequence[Captions]) -> list[tuple[float, list[float]]]:
    """Return, for the hypotheses of each of several captioners, METEOR of the whole set and of each image.

    Raises NoMeteorError where Java is missing or fails.
    """
    if shutil.which("java") is None:
        raise NoMeteorError("Java is missing; METEOR is a Java program: install a Java runtime")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        try:
            return _ask_java(references, several, complaints)
        except (OSError, ValueError) as error:
            complaints.seek(0)
            last_line = complaints.read().strip().rpartition("\n")[2]
            raise NoMeteorError(f"METEOR's Java program failed: {last_line or error}") from error


def _ask_java(
    references: Captions, several: Sequence[Captions], complaints: IO[str]
) -> list[tuple[float, list[float]]]:
    """Return what `meteor` returns; what Java writes to stderr goes to `complaints`.

    Speaks to the jar with the options of pycocoevalcap's wrapper, but not through it: when Java ends early the
    wrapper waits for ever, since it asks for its own lock again as it is deleted.
    """
    wrapper = require("pycocoevalcap.meteor.meteor", "evaluate")
    java = subprocess.Popen(
        ["java", "-Xmx2G", "-jar", wrapper.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"],
        cwd=Path(wrapper.__file__).parent,  # the jar looks for its data beside itself
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        encoding="utf-8",
    )
    watchdog = threading.Timer(METEOR_TIMEOUT_S, java.kill)
    watchdog.start()

    def answer(question: str = "") -> str:
        java.stdin.write(question)
        java.stdin.flush()
        if not (line := java.stdout.readline()):
            raise ValueError(f"it ended early, or took more than {METEOR_TIMEOUT_S:.0f} s")
        return line.strip()

    def score(hypotheses: Captions) -> tuple[float, list[float]]:
        counts = [answer(" ||| ".join(["SCORE", *references[i], *hypotheses[i]]) + "\n") for i in references]
        first = float(answer(" ||| ".join(["EVAL", *counts]) + "\n"))
        *each, value = first, *(float(answer()) for _ in counts)
        return value, each

    try:
        return [score(hypotheses) for hypotheses in several]
    finally:
        watchdog.cancel()
        java.kill()
        java.communicate()
