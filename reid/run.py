"""The run folder: what a run writes down, how it is seeded, and where it came from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import torchvision

from reid import __version__
from reid.errors import InputError
from reid.files import write_whole
from reid.plain import plain_yaml

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# Where a run lives, what it runs on and how it is looked after may differ between its parts.
MOVABLE = (
    *("OUTPUT_DIR", "DATASETS.ROOT", "DATASETS.FOLDER_ROOT", "DATASETS.CACHE", "MODEL.DEVICE", "TENSORBOARD"),
    *("CHECKPOINT.MINUTES", "SOLVER.NONFINITE", "TEST.BATCH_SIZE"),
    *("INPUT.CACHE", "INPUT.DEVICE_CACHE", "INPUT.THREADS"),
)
LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # some network disks


class RunFolder:
    """`OUTPUT_DIR` with `config.yaml`, `log.jsonl`, `scores.json`, `checkpoints/` and `report.html`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._log = path / "log.jsonl"
        self._tensorboard: Any = None
        self._locked: IO[str] | None = None
        self._epochs: dict[str, int] = {}  # of each run, TensorBoard's horizontal axis

    def check(
        self, config_text: str, *, resume: bool, complete: Callable[[str], str] = str, force: bool = False
    ) -> tuple[str, ...]:
        """Raise InputError where `open` would overwrite a run, find none to go on with, or go on with another.

        complete: adds to the configuration of an older run what keys made since then default to. force: go on though
        the configuration has changed. Returns what has changed.
        """
        config = self.path / "config.yaml"
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: OUTPUT_DIR must be a folder or not yet there")
        if config.exists() and not resume:
            raise InputError(
                f"{self.path} already holds a run: add --resume to go on with it, or choose another OUTPUT_DIR"
            )
        if resume and not config.exists():
            raise InputError(f"{self.path} holds no run to go on with: leave --resume out to start one")
        if self._locked is None and (self.path / LOCK).exists():
            lock_folder(self.path).close()
        changed: tuple[str, ...] = ()
        if resume:
            try:
                was = complete(_text(config))
            except InputError as error:
                raise InputError(f"{config}: does not tell what the run was ({error}); move the folder away") from None
            changed = changes(was, config_text)
        if changed and not force:
            raise InputError(
                f"{self.path}: the run to go on with has another configuration: {'; '.join(changed)}; "
                "give it as it was, or add --force"
            )
        return changed

    def open(
        self,
        config_text: str,
        *,
        resume: bool,
        complete: Callable[[str], str] = str,
        tensorboard: bool = False,
        force: bool = False,
    ) -> tuple[str, ...]:
        """Make the folder, or go on in it, and lock it until `close` or the end of the process.

        Raises and returns as `check` does; raises InputError too where another training has the folder.
        """
        self.check(config_text, resume=resume, complete=complete, force=force)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._locked = lock_folder(self.path)
        # Again, now that nobody else can come in between.
        changed = self.check(config_text, resume=resume, complete=complete, force=force)
        for folder in (self.path, self.checkpoints):
            for left in folder.glob(".*.writing"):  # by a process that was killed
                left.unlink()
        if not resume or changed:
            write_text(self.path / "config.yaml", config_text)
        if tensorboard:
            self._tensorboard = _tensorboard_writer(self.path)
        return changed

    def close(self) -> None:
        """Let others have the folder."""
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl`, to be on the disk before the checkpoint that counts it."""
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._to_tensorboard(entry)

    def log_length(self) -> int:
        """Lines written so far; a checkpoint remembers it."""
        return len(self._log.read_text(encoding="utf-8").splitlines()) if self._log.exists() else 0

    def cut_log(self, lines: int) -> None:
        """Forget what was logged after the checkpoint that the run goes on from."""
        if self._log.exists():
            kept = self._log.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
            write_text(self._log, "".join(kept))

    def _to_tensorboard(self, entry: dict[str, Any]) -> None:
        if self._tensorboard is None or "run" not in entry:
            return
        if not self._epochs and self._log.exists():
            lines = [json.loads(line) for line in self._log.read_text(encoding="utf-8").splitlines()[:-1]]
            self._epochs = {run: sum(_is_epoch(line, run) for line in lines) for run in ("rri", "control")}
        self._epochs[entry["run"]] += _is_epoch(entry, entry["run"])
        values = {k: v for k, v in entry.items() if isinstance(v, float)}
        for score in entry.get("scores", []):
            name = f"{score['feature']}{'_normalized' if score['normalized'] else ''}{'_flip' if score['flip'] else ''}"
            values |= {f"{name}/rank1": score["rank1"], f"{name}/mAP": score["mAP"]}
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{entry['run']}/{name}", value, self._epochs[entry["run"]])
        self._tensorboard.flush()


def lock_folder(folder: Path, busy: str = "trains into it; let it end, or choose another OUTPUT_DIR") -> IO[str]:
    """The lock of a folder, which the kernel takes back when the process ends however it may end.

    Raises InputError where another has it: who, and `busy`.
    """
    file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 - open for as long as it locks
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return file
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
            raise
        raise InputError(f"{folder}: {holder} {busy}") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _is_epoch(entry: dict[str, Any], run: str) -> bool:
    return entry["kind"] == "epoch" and entry["run"] == run


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    write_whole(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file or nothing."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def seed_from(*parts: object) -> int:
    """A seed in [0, 2**63) for one use, from what names it: (seed, stage, round, epoch), say.

    An epoch seeded so is the same whatever ran before it, which is what makes a resumed run equal to an unbroken one.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices) and the global generators of NumPy and Python, which libraries may use."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_states() -> dict[str, Any]:
    """Where the generators of `seed_everything` stand, as tensors and plain values."""
    _, keys, *numpy = np.random.get_state(legacy=True)
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *numpy],
        "python": [version, list(numbers), gauss],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Take over what `random_states` gave; devices that are not there any more are left out."""
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    keys, *numpy = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *numpy))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))


def provenance() -> dict[str, Any]:
    """Where a run came from: command, commit, versions, machine."""
    return {
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "versions": {
            "reid": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error})") from None


def changes(old: str, new: str) -> tuple[str, ...]:
    """The keys whose values differ, but for those that may."""
    was, now = (dict(flatten(plain_yaml(text) or {})) for text in (old, new))
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key) and key not in MOVABLE]
    return tuple(f"{key} was {was.get(key)}, is {now.get(key)}" for key in keys)


def flatten(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, each under its dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _tensorboard_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TENSORBOARD True needs the extra: pip install 'reid[tensorboard]'") from None
    return SummaryWriter(str(path / "tensorboard"))
