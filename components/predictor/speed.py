"""What makes small requests fast, with what each measure gains; and the interpreter's settings.

Measured on two CPUs, where the model takes 100 µs for a 28x28 picture.

| measure | gain |
|---|---|
| a request that is alone and small is answered on the event loop (dispatch.py) | a thread and back: 10 µs at best, 33 µs in the median |
| `Worker` instead of concurrent.futures | 10 µs per job instead of 24 |
| `Runner`: a thread runs the model for small requests that come together | CPU at 16 connections: V1 430 µs, not 706; V2 286, not 453 |
| `Worker` gathers results before it wakes the event loop | at 16 connections a wake-up cost a quarter of a request |
| a 200 is written in one piece (http/connections.py), not by uvicorn in two | 33 µs of 378 (V2 binary) |
| `tune_interpreter`: threads give up Python's lock after 0.5 ms instead of 5 | health waits for the lock several times per response |
| `freeze_garbage`: what is loaded is never collected, the rest 28 times less often | no pause of 50 ms now and then |
| `give_memory_back`: a process that has grown gives back what it does not need after large requests | 416 MB after an attack became 132 |
| `new_id` (protocol/request.py): a counter instead of a UUID | 0.4 µs instead of 7 |

Other measures stand with their subject: onnxruntime's threads do not spin while idle (bundle/model.py), more than one of them is
used only where it helps (loaded_model.py), and KServe's heavy imports are put off (sdk.py).
"""

import asyncio
import ctypes
import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

QUICK_SECONDS = 0.003
"""A model that takes longer for one picture never runs on the event loop."""
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLDS = (20_000, 20, 20)
"""One picture as nested JSON lists is about a thousand objects: with Python's 700 each request would trigger a collection."""
_GIVE_BACK_SECONDS, _TRY_AGAIN_SECONDS = 5.0, 60.0
_GROWTH_BYTES = 4 * 2**20


def tune_interpreter() -> None:
    """Let threads take turns at Python's lock more often."""
    sys.setswitchinterval(_SWITCH_SECONDS)


def freeze_garbage() -> None:
    """Exempt all present objects from garbage collection, and collect later ones less often; call it after loading a model."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def give_memory_back(last_large: Callable[[], float]) -> None:
    """Give to the system what large requests took, whenever the process has grown and none came for a while; runs until cancelled.

    `last_large` is when the last of them was worked on (time.monotonic). The C library keeps what was freed below something that lives,
    and gives it back only when it is told to (malloc_trim(3)). That takes milliseconds, in which nobody else gets memory: it is done
    again only after more large requests, or after a minute.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    least = resident_bytes()
    tried = time.monotonic()
    while trim is not None and least:
        await asyncio.sleep(_GIVE_BACK_SECONDS)
        now, large = time.monotonic(), last_large()
        due = large > tried or now > tried + _TRY_AGAIN_SECONDS
        if due and now > large + _GIVE_BACK_SECONDS and resident_bytes() > least + _GROWTH_BYTES:
            tried = now
            gc.collect()
            await asyncio.to_thread(trim, 0)
            least = min(least, resident_bytes())  # it never rises: what lives now may be gone in the next pause


def resident_bytes() -> int:
    """Bytes of memory that this process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
