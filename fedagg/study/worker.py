"""A warm process that carries out one run of a study after another: imports and data are paid for once.

    python -m fedagg.study.worker

Tasks come as lines of JSON on standard input, or the word ``pause``: end after this round. What happens goes out as lines of
JSON on standard output; whatever plug-ins print goes to standard error. When standard input ends, the parent has gone, and so
does the worker, at once: what it was doing goes on from its checkpoint when the study is called again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from fedagg.study.work import Task, carry_out

TELL_EVERY = 0.5  # seconds
PAUSE = "pause"


def main() -> None:
    """Work until standard input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**event: Any) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    tasks, paused = queue.SimpleQueue[Task](), threading.Event()
    threading.Thread(target=_listen, args=(tasks, paused), daemon=True).start()
    logging.getLogger("flwr").setLevel(logging.ERROR)  # its strategies log every step of every round
    import fedagg.experiment  # noqa: F401  now, so that the first run does not wait for it

    while True:
        task, told = tasks.get(), 0.0

        def tell(round: int, state: str) -> None:
            nonlocal told
            if time.monotonic() - told > TELL_EVERY:
                told = time.monotonic()
                say(round=round, state=state)

        say(outcome=asdict(carry_out(task, tell, paused.is_set)))


def _listen(tasks: queue.SimpleQueue[Task], paused: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == PAUSE:
            paused.set()
        else:
            tasks.put(Task(**json.loads(line)))
    os._exit(1)


if __name__ == "__main__":
    main()
