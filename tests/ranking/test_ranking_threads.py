from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import exact_reference

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import hashlib, numpy as np, torch
from exact_reference import drawn, labels
from reid.ranking import rank_matches
from reid.records import Features
torch.set_num_threads(int(sys.argv[2]))
digest = hashlib.sha256()
for kind in ("random", "duplicated", "lengths"):
    rng = np.random.default_rng(0)
    query, gallery = drawn(kind, 130, 1500, 257)
    sides = [(part, labels(rng, len(part), lowest=1, identities=99)) for part in (query, gallery)]
    for convert in (np.asarray, torch.from_numpy):
        parts = [Features(convert(values), of[:, 0], of[:, 1]) for values, of in sides]
        digest.update(rank_matches(*parts).ranks.tobytes())
print(digest.hexdigest())
"""


def test_the_number_of_threads_changes_nothing() -> None:
    found = set()
    for threads in ("1", "2"):
        settings_ = {name: threads for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        # Threads that wait without turning: this machine may have fewer cores than that.
        settings_["OMP_WAIT_POLICY"] = "passive"
        command = [sys.executable, "-c", SCRIPT, str(Path(exact_reference.__file__).parent), threads]
        done = subprocess.run(command, env={**os.environ, **settings_}, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1
