"""Cost of k-reciprocal re-ranking: time relative to the float32 product of all pairs, and peak memory.

    python benchmarks/reranking.py [--queries 3368] [--gallery 15913] [--width 2048] [--threads N] [--rounds 3]
                                   [--torchreid CLONE [--torchreid-rounds 1]]

Each candidate runs in its own process, alternating, on the same features; medians are reported. The product is of all
N x N pairs, N = queries + gallery, without symmetry. `rerank` is everything from the features to the mAP; `torchreid`
is the distances and the re-ranking of a clone of deep-person-reid, without its evaluation. Core-seconds are the CPU
time of all cores, which other load on the machine disturbs less. Memory is the peak of the resident set, in total and
above that of the process with its libraries and features loaded. The default is the size of Market-1501 without its
junk; a dense array of --gallery 100000 --width 512 does not fit into memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import benchmark_parser, matrix_product, show
from synthetic_features import clustered, load, save

if TYPE_CHECKING:
    import numpy as np

    from reid.records import Features


def main() -> None:
    sizes = {"queries": 3368, "gallery": 15913, "width": 2048, "threads": os.cpu_count() or 1, "rounds": 3}
    parser = benchmark_parser(__doc__, **sizes, torchreid_rounds=1)
    parser.add_argument("--torchreid", type=Path, help="the folder of a clone of deep-person-reid")
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    parser.add_argument("--features", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.candidate:
        print(json.dumps(measure(arguments.candidate, arguments.features, arguments.torchreid)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        save(path, *clustered(arguments.queries, arguments.gallery, arguments.width))
        rounds = {"product": arguments.rounds, "rerank": arguments.rounds}
        if arguments.torchreid:
            rounds["torchreid"] = arguments.torchreid_rounds
        found: dict[str, list[dict[str, float]]] = {name: [] for name in rounds}
        for turn in range(max(rounds.values())):
            for name, number in rounds.items():
                if turn < number:
                    found[name].append(run(name, arguments, path))
    size = f"{arguments.queries + arguments.gallery} x {arguments.width}"
    about = f"{size}, {arguments.threads} thread(s), medians; load average {os.getloadavg()[0]:.1f}"
    show(rows(found), f"reranking_{arguments.gallery}", about, arguments.save)


def run(candidate: str, arguments: argparse.Namespace, path: Path) -> dict[str, float]:
    """Measure one candidate in a fresh process."""
    command = [sys.executable, __file__, "--candidate", candidate, "--features", str(path)]
    if arguments.torchreid:
        command += ["--torchreid", str(arguments.torchreid)]
    # The libraries of NumPy read the number of threads when they are loaded.
    threads = {name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    # A spinning thread takes a core from the others.
    environment = {**os.environ, **threads, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(candidate: str, path: Path, torchreid: Path | None) -> dict[str, float]:
    """Measure time, CPU time, memory and mAP of one candidate in this process."""
    import numpy as np

    from reid.ranking.reranking.rerank import rerank_ranking

    query, gallery = load(path)
    peer = load_peer(torchreid) if candidate == "torchreid" and torchreid else None
    before = resident()
    start, busy = time.perf_counter(), time.process_time()
    score = float("nan")
    if candidate == "product":
        values = np.concatenate([query.values, gallery.values])
        matrix_product(values, values)
    elif peer is not None:
        distances = peer_distances(peer, query.values, gallery.values)
    else:
        score = rerank_ranking(query, gallery).scores().mAP
    seconds, cores = time.perf_counter() - start, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if peer is not None:
        score = mean_precision(distances, query, gallery)
    return {"seconds": seconds, "cores": cores, "peak": peak, "above": peak - before, "mAP": score}


def resident() -> float:
    """Resident memory of this process in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def load_peer(clone: Path) -> Any:
    path = clone / "torchreid" / "utils" / "rerank.py"
    if not path.is_file():
        sys.exit(f"error: {path}: no such file; give --torchreid the folder of a clone of deep-person-reid")
    spec = importlib.util.spec_from_file_location("peer_rerank", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peer_distances(peer: Any, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Re-ranked distances of torchreid, from squared Euclidean ones in float32 as it computes them."""
    import torch

    def squared(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        one, other = torch.from_numpy(first), torch.from_numpy(second)
        norms = one.square().sum(1, keepdim=True) + other.square().sum(1)
        found: np.ndarray = norms.addmm_(one, other.t(), alpha=-2).numpy()
        return found

    distances: np.ndarray = peer.re_ranking(squared(query, gallery), squared(query, query), squared(gallery, gallery))
    return distances


def mean_precision(distances: np.ndarray, query: Features, gallery: Features) -> float:
    """mAP of a Q x G array of distances."""
    import numpy as np

    scores = []
    for row, identity, camera in zip(distances, query.identities, query.cameras, strict=True):
        order = np.argsort(row, kind="stable")
        identities, cameras = gallery.identities[order], gallery.cameras[order]
        kept = (identities != -1) & ~((identities == identity) & (cameras == camera))
        ranks = np.flatnonzero(identities[kept] == identity) + 1
        if len(ranks):
            scores.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(scores))


def rows(found: dict[str, list[dict[str, float]]]) -> Iterator[dict[str, str]]:
    """Medians of each candidate, and their ratios."""
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    product = median["product"]
    for name, values in median.items():
        yield {
            "": name,
            "seconds": f"{values['seconds']:.1f}",
            "/ product": f"{values['seconds'] / product['seconds']:.2f}",
            "core-seconds": f"{values['cores']:.1f}",
            "core-seconds / product": f"{values['cores'] / product['cores']:.2f}",
            "GB in all": f"{values['peak']:.2f}",
            "GB above the features": f"{values['above']:.2f}",
            "mAP": "" if name == "product" else f"{values['mAP']:.5f}",
            "runs": str(len(found[name])),
        }


if __name__ == "__main__":
    main()
