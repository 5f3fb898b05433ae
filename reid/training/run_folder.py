"""The folder of a run: its configuration, log, checkpoints and lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any

from reid.errors import InputError
from reid.io.atomic import make_folder, sync_folder, write_text
from reid.io.json_yaml import flatten, parse_yaml
from reid.io.locks import LOCK_NAME, lock_folder


class RunFolder:
    """`OUTPUT_DIR` with `config.yaml`, `log.jsonl`, `scores.json`, `checkpoints/` and `report.html`.

    Args:
        path: The folder, which need not exist.
        movable: Keys of the configuration that may change when the run is resumed, such as paths.
    """

    def __init__(self, path: Path, *, movable: Collection[str] = ()) -> None:
        self.path = path
        self.movable = movable
        self.checkpoints = path / "checkpoints"
        self._log = path / "log.jsonl"
        self._tensorboard: Any = None
        self._locked: IO[str] | None = None
        self._epochs: dict[str, int] = {}  # of each run, TensorBoard's horizontal axis

    def check(
        self, config_text: str, *, resume: bool, complete: Callable[[str], str] = str, force: bool = False
    ) -> tuple[str, ...]:
        """Check whether a run can be started or resumed in the folder.

        Args:
            config_text: The configuration as YAML.
            resume: Whether the folder must hold a run, or must not.
            complete: Adds the defaults of newer keys to the configuration of an older run.
            force: Whether the configuration may have changed.

        Returns:
            The changes of the configuration, one line each.

        Raises:
            InputError: If `open` would overwrite a run, find none to resume, or resume a different one.
        """
        config = self.path / "config.yaml"
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; OUTPUT_DIR must be a folder or a new path")
        if config.exists() and not resume:
            raise InputError(
                f"{self.path} already holds a run; add --resume to continue it, or choose another OUTPUT_DIR"
            )
        if resume and not config.exists():
            raise InputError(f"{self.path} holds no run to resume; leave out --resume to start one")
        if self._locked is None and (self.path / LOCK_NAME).exists():
            lock_folder(self.path).close()
        changed: tuple[str, ...] = ()
        if resume:
            try:
                was = complete(_text(config))
            except InputError as error:
                raise InputError(f"{config}: not a valid configuration ({error}); move the folder away") from None
            changed = changes(was, config_text, self.movable)
        if changed and not force:
            raise InputError(
                f"{self.path}: the configuration has changed: {'; '.join(changed)}; restore it, or add --force"
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
        """Create the folder, or resume in it, and lock it until `close` or the end of the process.

        Args:
            config_text: As in `check`.
            resume: As in `check`.
            complete: As in `check`.
            tensorboard: Whether to write TensorBoard's files too.
            force: As in `check`.

        Returns:
            The changes of the configuration, as `check` does.

        Raises:
            InputError: As in `check`, and if another training has locked the folder.
        """
        self.check(config_text, resume=resume, complete=complete, force=force)
        make_folder(self.checkpoints)
        self._locked = lock_folder(self.path)
        # Again, now that no other process can write to the folder.
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
        """Release the lock."""
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl` and flush it, before the checkpoint that counts it is written.

        Args:
            entry: Plain values.
        """
        new = not self._log.exists()
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path)
        self._to_tensorboard(entry)

    def log_length(self) -> int:
        """Count the lines of the log; a checkpoint stores the count.

        Returns:
            The number of lines.
        """
        return len(self._log.read_text(encoding="utf-8").splitlines()) if self._log.exists() else 0

    def cut_log(self, lines: int) -> None:
        """Remove what was logged after the checkpoint that the run is resumed from.

        Args:
            lines: Number of lines to keep.
        """
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


def _is_epoch(entry: dict[str, Any], run: str) -> bool:
    return entry["kind"] == "epoch" and entry["run"] == run


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file ({error})") from None


def changes(old: str, new: str, movable: Collection[str] = ()) -> tuple[str, ...]:
    """Compare two configurations.

    Args:
        old: YAML.
        new: YAML.
        movable: Keys that may differ.

    Returns:
        One line per key whose value differs.
    """
    was, now = (dict(flatten(parse_yaml(text) or {})) for text in (old, new))
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key) and key not in movable]
    return tuple(f"{key} was {was.get(key)}, is {now.get(key)}" for key in keys)


def _tensorboard_writer(path: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TENSORBOARD True needs the extra: pip install 'reid[tensorboard]'") from None
    return SummaryWriter(str(path / "tensorboard"))
