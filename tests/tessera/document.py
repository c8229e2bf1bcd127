"""``python document.py FILE`` runs that script as it stands; the processes that it starts are forks, as in a test."""

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("nursery", Path(__file__).parents[1] / "nursery.py")
nursery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(nursery)
subprocess.Popen = nursery.Forked
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    nursery.close()
