"""A clock that is set while a process runs: the system's calls for the time of day, moved by what a file says."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOUR = 3600
SOURCE = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void map(void) {
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    offset = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int status = syscall(SYS_clock_gettime, id, now);
    if (!status && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    int status = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return status;
}

time_t time(time_t *result) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (result) *result = precise.tv_sec;
    return precise.tv_sec;
}
"""


class Clock:
    """The time of day of processes that have :attr:`environment`; monotonic clocks stay as they are.

    libfaketime would do, but for ``time.sleep``, which fails under it where monotonic clocks are left alone.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler, to make a library that moves the clock")
        self._offset, source, library = folder / "offset", folder / "clock.c", folder / "clock.so"
        source.write_text(SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}

    def set(self, seconds: int) -> None:
        """Let the clock be ``seconds`` ahead of the system's, at once and in running processes too."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as opened:
            opened.write(seconds.to_bytes(8, "little", signed=True))

    @contextmanager
    def jumping(self, seconds: float = 0.05) -> Iterator[None]:
        """Set the clock hours back and forward, so often, while the block runs."""
        stop = threading.Event()

        def jump() -> None:
            for hours in itertools.cycle((-5, 0, 9, -30, 1)):
                self.set(hours * HOUR)
                if stop.wait(seconds):
                    return

        thread = threading.Thread(target=jump)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.set(0)
