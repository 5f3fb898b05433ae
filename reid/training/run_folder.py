"""The folder of a run: its configuration, log, checkpoints, record of the images, and lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from reid.errors import InputError, install_command
from reid.io.atomic import make_folder, sync_folder, write_bytes, write_text
from reid.io.digest import compute_digest
from reid.io.json_yaml import flatten, parse_json, parse_yaml
from reid.io.locks import LOCK_NAME, lock_folder
from reid.training import data_record
from reid.training.data_record import Row

# The kinds of lines in the log that hold no result of the training.
_BEFORE_TRAINING = ("start", "threads", "changed")


class RunFolder:
    """`OUTPUT_DIR` with `config.yaml`, `data.json`, `log.jsonl`, `scores.json`, `checkpoints/` and `report.html`.

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
        self._force = False
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
        if not config.exists() and (self._log.exists() or list(self.checkpoints.glob("*.pth"))):
            raise InputError(
                f"{self.path} holds a run whose config.yaml is missing; restore it and add --resume, or choose another "
                "OUTPUT_DIR"
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
        data: Mapping[str, Sequence[Row]] | None = None,
    ) -> tuple[str, ...]:
        """Create the folder, or resume in it, and lock it until `close` or the end of the process.

        Args:
            config_text: As in `check`.
            resume: As in `check`.
            complete: As in `check`.
            tensorboard: Whether to write TensorBoard's files too.
            force: Whether configuration, images and log may have changed.
            data: The images of the run as `reid.training.data_record.record_data` lists them, None where there are none
                to record.

        Returns:
            The changes of configuration and images, one line each.

        Raises:
            InputError: As in `check`, if another training has locked the folder, and if the images are not those that
                the run was trained on.
        """
        self.check(config_text, resume=resume, complete=complete, force=force)
        make_folder(self.checkpoints)
        self._locked, self._force = lock_folder(self.path), force
        try:
            # Again, now that no other process can write to the folder.
            changed = self.check(config_text, resume=resume, complete=complete, force=force)
            changed_data = self._compare_data(data) if resume and data is not None else ()
        except BaseException:
            self.close()
            raise
        for folder in (self.path, self.checkpoints):
            for left in folder.glob(".*.writing"):  # by a process that was killed
                left.unlink()
        # Before the configuration, with which there is a run in the folder: no run lacks the record of its images.
        if data is not None and (not resume or changed_data):
            write_text(self.path / data_record.NAME, data_record.to_text(data))
        if not resume or changed:
            write_text(self.path / "config.yaml", config_text)
        if tensorboard:
            self._tensorboard = _tensorboard_writer(self.path)
        return changed + changed_data

    def _compare_data(self, data: Mapping[str, Sequence[Row]]) -> tuple[str, ...]:
        path = self.path / data_record.NAME
        if not path.exists():
            return (f"{data_record.NAME} was missing: the images of the run so far were not compared with the present",)
        try:
            changed = data_record.data_changes(data_record.read_record(path), data)
        except InputError as error:
            if not self._force:
                raise
            return (f"the images of the run so far were not compared with the present ones: {error}",)
        if changed and not self._force:
            raise InputError(
                f"{self.path}: the dataset has changed since the run began: {'; '.join(changed)}; restore it, choose "
                "another OUTPUT_DIR, or add --force"
            )
        return changed

    def close(self) -> None:
        """Release the lock."""
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def check_ours(self) -> None:
        """Check, before something is written, that the folder is still the one that was locked.

        Raises:
            InputError: If the folder was removed or replaced; it may now belong to another training.
        """
        if self._locked is None:
            return
        try:
            ours = os.path.samestat(os.fstat(self._locked.fileno()), os.stat(self.path / LOCK_NAME))
        except (FileNotFoundError, NotADirectoryError):
            ours = False
        if not ours:
            raise InputError(
                f"{self.path}: the folder was removed or replaced while this run was training into it; the run stops "
                "and writes nothing more"
            )

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to `log.jsonl` and flush it, before the checkpoint that counts it is written.

        Args:
            entry: Plain values.

        Raises:
            InputError: If the folder was removed or replaced.
        """
        self.check_ours()
        new = not self._log.exists()
        with open(self._log, "ab") as file:
            file.write(f"{json.dumps(entry)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path)
        self._to_tensorboard(entry)

    def log_position(self) -> dict[str, Any]:
        """Describe the log so far, for the checkpoint that is written next.

        Returns:
            "log_lines", the number of lines, and "log_sha256", the digest of their bytes.
        """
        data = self._log.read_bytes() if self._log.exists() else b""
        return {"log_lines": data.count(b"\n"), "log_sha256": compute_digest(data)}

    def cut_log(self, lines: int, digest: str | None = None) -> tuple[str, ...]:
        """Remove what was logged after the checkpoint that the run is resumed from.

        What was logged about changes of the run stays.

        Args:
            lines: Number of lines to keep, "log_lines" of the checkpoint.
            digest: "log_sha256" of the checkpoint, None in those of earlier versions.

        Returns:
            What is worth knowing, one line each.

        Raises:
            InputError: If these lines are not there, or are not those that were written. With `force` they need not be.
        """
        self.check_ours()
        if self._log.is_symlink() or (self._log.exists() and not self._log.is_file()):
            raise InputError(f"{self._log}: not a regular file, so nothing is appended to it; put the log in its place")
        data = self._log.read_bytes() if self._log.exists() else b""
        *complete, torn = data.split(b"\n")
        kept = b"".join(line + b"\n" for line in complete[:lines])
        notes = []
        if len(complete) < lines or (digest is not None and compute_digest(kept) != digest):
            fault = f"{len(complete)} lines" if len(complete) < lines else "other lines"
            fault = f"{self._log}: {fault} instead of the {lines} that the checkpoint was written after"
            if not self._force:
                raise InputError(f"{fault}; restore the file, choose another OUTPUT_DIR, or add --force to go on")
            notes.append(fault)
        removed = [line for line in complete[lines:] if (_entry(line) or {}).get("kind") != "changed"]
        if torn:
            notes.append(f"{self._log}: the last line is incomplete, as after a crash, and is removed")
        about_changes = (line + b"\n" for line in complete[lines:] if line not in removed)
        if removed or torn:
            write_bytes(self._log, kept + b"".join(about_changes))
        return tuple(notes)

    def start_log(self) -> None:
        """Empty the log of a run that was interrupted before its first checkpoint.

        Raises:
            InputError: If it holds the results of a run whose checkpoints are gone.
        """
        self.check_ours()
        *lines, _ = self._log.read_bytes().split(b"\n") if self._log.exists() else [b""]
        if any((_entry(line) or {}).get("kind") not in _BEFORE_TRAINING for line in lines):
            raise InputError(
                f"{self.checkpoints} holds no checkpoint to resume from, although {self._log.name} has results of a "
                "run; restore the checkpoints, or choose another OUTPUT_DIR"
            )
        self._log.unlink(missing_ok=True)

    def log_entries(self) -> Iterator[dict[str, Any]]:
        """Read the log.

        Yields:
            Each line that is a JSON object; others are skipped.
        """
        if self._log.is_file():
            yield from filter(None, map(_entry, self._log.read_bytes().splitlines()))

    def _to_tensorboard(self, entry: dict[str, Any]) -> None:
        if self._tensorboard is None or "run" not in entry:
            return
        if not self._epochs:
            *earlier, _ = self.log_entries()
            self._epochs = {run: sum(_is_epoch(line, run) for line in earlier) for run in ("rri", "control")}
        self._epochs[entry["run"]] += _is_epoch(entry, entry["run"])
        values = {k: v for k, v in entry.items() if isinstance(v, float)}
        for score in entry.get("scores", []):
            name = f"{score['feature']}{'_normalized' if score['normalized'] else ''}{'_flip' if score['flip'] else ''}"
            values |= {f"{name}/rank1": score["rank1"], f"{name}/mAP": score["mAP"]}
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{entry['run']}/{name}", value, self._epochs[entry["run"]])
        self._tensorboard.flush()


def _entry(line: bytes) -> dict[str, Any] | None:
    """A line of the log; None if it is unreadable."""
    try:
        entry = parse_json(line.decode("utf-8"))
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_epoch(entry: dict[str, Any], run: str) -> bool:
    return entry.get("kind") == "epoch" and entry.get("run") == run


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
        raise InputError(f"TENSORBOARD True needs the extra: {install_command('tensorboard')}") from None
    return SummaryWriter(str(path / "tensorboard"))
