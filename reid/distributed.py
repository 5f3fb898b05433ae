"""Several processes started by torchrun; with a single process every function here is a no-op.

`broadcast` sends a value from the main process to the others, `gather` collects one value per process on the main
process. Values are serialized by `torch.save` and read without executing pickles.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from reid.errors import Diverged, InputError, Interrupted
from reid.io.tensor_files import from_bytes, to_bytes

Value = TypeVar("Value")

JOIN_TIMEOUT = 300.0  # seconds to wait for the other processes at the start
COLLECTIVE_TIMEOUT = 7200.0  # and later, where the main process may be decoding or ranking a million images
REPORT_TIMEOUT = 3.0  # seconds that the main process has to report an error that all processes met
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    *((InputError, 2), (OSError, 2), (Diverged, 1)),
    *((Interrupted, 130), (KeyboardInterrupt, 130)),
)


@dataclass(frozen=True)
class ProcessInfo:
    """The position of this process among those that torchrun started.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes on all hosts.
        local_rank: Number of this process on its host, from 0.
        local_world_size: Number of processes on this host.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1


def process_info() -> ProcessInfo:
    """Read the environment variables of torchrun.

    Returns:
        The position of this process; that of a single process if the variables are not set.

    Raises:
        InputError: If the variables are incomplete or contradict each other.
    """
    names = ("RANK", "WORLD_SIZE")
    found = {name: os.environ[name] for name in (*names, "LOCAL_RANK", "LOCAL_WORLD_SIZE") if os.environ.get(name)}
    if not any(name in found for name in names):
        return ProcessInfo()
    variables = ", ".join(f"{name}={value}" for name, value in found.items())
    advice = "start with torchrun, which sets all of them, or unset them"
    try:
        rank, world_size = (int(found.get(name, 0)) for name in names)
        local_rank = int(found.get("LOCAL_RANK", rank))
        local_world_size = int(found.get("LOCAL_WORLD_SIZE", world_size))
    except ValueError:
        raise InputError(f"{variables}: these must be whole numbers; {advice}") from None
    if (rank, world_size) == (0, 1):
        return ProcessInfo()
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InputError(f"{variables}, but {' and '.join(missing)} not set; {advice}")
    if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size and local_rank <= rank):
        raise InputError(f"{variables}: there is no such process; {advice}")
    return ProcessInfo(rank, world_size, local_rank, local_world_size)


def get_rank() -> int:
    """Return the number of this process.

    Returns:
        The rank, from 0; 0 outside `process_group`.
    """
    return dist.get_rank() if _is_initialized() else 0


def get_world_size() -> int:
    """Return the number of processes that work together.

    Returns:
        The number of processes on all hosts; 1 outside `process_group`.
    """
    return dist.get_world_size() if _is_initialized() else 1


def is_main_process() -> bool:
    """Return whether this process writes files, prints and shows progress bars.

    Returns:
        True for rank 0.
    """
    return get_rank() == 0


@contextlib.contextmanager
def process_group(*, join_timeout: float = JOIN_TIMEOUT, timeout: float = COLLECTIVE_TIMEOUT) -> Iterator[ProcessInfo]:
    """Join the other processes that torchrun started, if there are any.

    Only the main process prints inside the block. When one process ends with an error, all of them end: one reports the
    error, the others raise SystemExit with its exit code.

    Args:
        join_timeout: Seconds to wait for the other processes at the start.
        timeout: Seconds to wait for them in every later collective call.

    Yields:
        Rank of this process and number of processes, on all hosts and on this one.

    Raises:
        InputError: If the other processes do not appear or one of them is lost.
    """
    info = process_info()
    if info.world_size == 1:
        yield info
        return
    store = _initialize(info, join_timeout, timeout)
    try:
        with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(sys.stdout if is_main_process() else devnull):
            yield info
        barrier()
    except BaseException as error:
        # The group is not destroyed here: that could wait for processes that are gone.
        raised = _exit_error(store, info, error)
        if raised is error:
            raise
        raise raised from None
    _destroy_group()


def broadcast(value: Value) -> Value:
    """Send a value from the main process to all others.

    Args:
        value: Plain values, NumPy scalars and tensors; ignored on the other processes.

    Returns:
        The value of the main process, its tensors on the CPU where it was received.
    """
    if get_world_size() == 1:
        return value
    packed = _pack(value) if is_main_process() else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor(len(packed))
    dist.broadcast(size, 0)
    data = packed if is_main_process() else torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(data, 0)
    return value if is_main_process() else _unpack(data)


def gather(value: Value) -> list[Value]:
    """Collect one value per process on the main process.

    Args:
        value: Plain values, NumPy scalars and tensors.

    Returns:
        The values in the order of the ranks on the main process, an empty list on the others.
    """
    if get_world_size() == 1:
        return [value]
    packed = _pack(value)
    sizes = [torch.tensor(0) for _ in range(get_world_size())]
    dist.all_gather(sizes, torch.tensor(len(packed)))
    if not is_main_process():
        dist.send(packed, 0)
        return []
    values = [value]
    for rank, size in enumerate(map(int, sizes[1:]), 1):
        data = torch.empty(size, dtype=torch.uint8)
        dist.recv(data, rank)
        values.append(_unpack(data))
    return values


def run_on_main(compute: Callable[[], Value]) -> Value:
    """Call a function on the main process only and send its result to all processes.

    Args:
        compute: Function without arguments whose result `broadcast` can send.

    Returns:
        The result, on every process.
    """
    return broadcast(compute()) if is_main_process() else broadcast(None)  # type: ignore[return-value]


@torch.no_grad()
def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors in place by those of the main process.

    Args:
        tensors: The same shapes and dtypes in the same order on every process, on any device.
    """
    if get_world_size() == 1:
        return
    for tensor in tensors:
        contiguous = tensor.contiguous()
        dist.broadcast(contiguous, 0)
        if contiguous is not tensor:
            tensor.copy_(contiguous)


def all_reduce_max(value: int) -> int:
    """Return the largest of the values of all processes, on all of them.

    The values are exchanged between CPUs, so that a lost process is noticed at once.

    Args:
        value: Integer of this process.

    Returns:
        Largest value; the same on every process.
    """
    if get_world_size() == 1:
        return value
    maximum = torch.tensor(value)
    dist.all_reduce(maximum, dist.ReduceOp.MAX)
    return int(maximum)


def barrier() -> None:
    """Wait until all processes have come here."""
    all_reduce_max(0)


def process_slice(count: int, rank: int, world_size: int) -> slice:
    """Divide a sequence evenly between processes.

    Args:
        count: Length of the sequence.
        rank: Rank of the process, from 0.
        world_size: Number of processes.

    Returns:
        The contiguous part that process `rank` takes; all parts together cover the sequence once.
    """
    return slice(rank * count // world_size, (rank + 1) * count // world_size)


@contextlib.contextmanager
def local_main_first() -> Iterator[None]:
    """Run the block on one process per host first, which unpacks and decodes what the others then find.

    Yields:
        None, once: on one process per host before the others.
    """
    local_main = get_world_size() == 1 or process_info().local_rank == 0
    if not local_main:
        barrier()
    yield
    if local_main:
        barrier()


def restart_command(program: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the command line that starts a program again with as many processes.

    Args:
        program: Words that start it: an executable file and its command, such as ("svdnet", "train"), or what follows
            "python", ("tools/train_svdnet.py",) or ("-m", "reid", "train").
        arguments: Command-line arguments after the program.

    Returns:
        A shell command, or a description of it if there are several hosts.
    """
    info = process_info()
    is_executable = program[0] != "-m" and not program[0].endswith(".py")
    if info.world_size == 1:
        return shlex.join([*([] if is_executable else [sys.executable]), *program, *arguments])
    # torchrun starts Python files and modules, on all systems.
    words = [*(["-m", "reid", *program[1:]] if is_executable else program), *arguments]
    if info.local_world_size == info.world_size:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(info.world_size))
        return shlex.join([sys.executable, *launcher, *words])
    return f"torchrun, on every host as before, with {shlex.join(words)}"


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _initialize(info: ProcessInfo, join_timeout: float, timeout: float) -> dist.Store:
    limit = datetime.timedelta(seconds=join_timeout)
    if info.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(info.local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", info.rank, info.world_size, timeout=limit)))
        # Without this, a process that dies before the group exists would be waited for as long as a later one.
        store.set(f"here/{info.rank}", "")
        store.wait([f"here/{rank}" for rank in range(info.world_size)], limit)
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=info.rank, world_size=info.world_size,
            timeout=datetime.timedelta(seconds=timeout),
        )  # fmt: skip
    except (RuntimeError, ValueError, OSError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(
            f"process {info.rank} of {info.world_size} could not reach the other processes at {address} within "
            f"{join_timeout:.0f} s; were all started, with the same address and port, reachable from every host? "
            f"({str(error).splitlines()[0][:200]})"
        ) from None
    return store


def _destroy_group() -> None:
    """Destroy the process group.

    Before PyTorch 2.8 a group holds Python's lock while it waits for the threads of gloo, and one of them may be
    waiting for that lock, to drop the last reference to a tensor. A reference to the backend does not hold it.
    """
    group: Any = dist.group.WORLD
    backend = group._get_backend(torch.device("cpu")) if hasattr(group, "_get_backend") else None
    del group  # destroyed before the backend
    dist.destroy_process_group()
    del backend


def _exit_error(store: dist.Store, info: ProcessInfo, error: BaseException) -> BaseException:
    """The error itself if this process is to report it, else SystemExit with the exit code of the one that did."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), 1)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
    try:
        if info.rank or _is_lost_process(error):
            with contextlib.suppress(dist.DistStoreError):
                store.wait(["exit_code"], datetime.timedelta(seconds=REPORT_TIMEOUT))
        if store.add("reporters", 1) > 1:
            code = int(store.get("exit_code"))
            # Wait until the reporting process has ended: torchrun kills the others when the first one exits.
            with contextlib.suppress(RuntimeError, KeyboardInterrupt):
                barrier()
            return SystemExit(code)
        store.set("exit_code", str(2 if _is_lost_process(error) else code))
    except (RuntimeError, ValueError, OSError):
        pass  # the store was in a process that is gone
    if not _is_lost_process(error):
        return error
    return InputError(
        f"process {info.rank} of {info.world_size} lost contact with another process (killed or unreachable); "
        "what was saved is intact; start the command again to resume (with --resume for training)"
    )


def _is_lost_process(error: BaseException) -> bool:
    """Whether an error says that another process is gone; gloo raises bare RuntimeErrors that name its files."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))
    )


def _pack(value: Any) -> Tensor:
    return torch.frombuffer(bytearray(to_bytes(value)), dtype=torch.uint8)


def _unpack(data: Tensor) -> Any:
    return from_bytes(data.numpy().tobytes())
