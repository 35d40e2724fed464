"""The tables of faults in BUILD_NOTES.md: every fault and signal, tried with the command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
@pytest.mark.parametrize("table", ["fault_table.py", "signal_table.py"])
def test_every_fault_comes_out_well(table):
    path = Path(__file__).with_name(table)
    result = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    print(result.stdout)
    assert result.returncode == 0, result.stdout
