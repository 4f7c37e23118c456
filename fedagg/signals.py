"""Ctrl-C and SIGTERM: the first one lets the round end, the second one does not."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from fedagg.loop import Callback


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run: after a round, whose checkpoint was written, or at once.

    Args:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What a shell expects: 130 for Ctrl-C, 143 for SIGTERM, which a cluster sends before it kills."""
        return 128 + self.signum


class StopOnSignal(Callback):
    """While entered, a first Ctrl-C or SIGTERM breaks the run off after its round; a second one raises at once.

    Signals reach the main thread only; elsewhere this does nothing.
    """

    caught: int | None = None

    def __enter__(self) -> StopOnSignal:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._before[signum] = signal.signal(signum, self._catch)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _catch(self, signum: int, frame: FrameType | None) -> None:
        if self.caught is not None:
            raise Interrupted(signum)
        self.caught, self.paused = signum, True
        print("stopping after this round; once more to stop at once", file=sys.stderr, flush=True)
