import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from fedagg.process import prepare_process
if {prepared}:
    prepare_process(threads=1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(16 << 20)
before = faults()
for _ in range(100):
    torch.ones(16 << 20)
print(faults() - before, torch.get_num_threads())
"""


def pages_fetched(prepared: bool) -> tuple[int, int]:
    out = subprocess.run([sys.executable, "-c", FAULTS.format(prepared=prepared)], check=True, capture_output=True, text=True)
    faults, threads = out.stdout.split()
    return int(faults), int(threads)


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="about glibc's malloc"
)
def test_memory_that_was_freed_is_used_again():
    """100 tensors of 64 MiB, one after the other: the system is asked for a few of them, or for each."""
    kept, threads = pages_fetched(prepared=True)
    assert threads == 1
    assert kept * 3 < pages_fetched(prepared=False)[0]
