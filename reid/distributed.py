"""Several processes, started by torchrun, at one job; on a single process all of this is silent.

What one process computes or reads goes to the others by `broadcast`, and what each holds to the first by `gather`.
Values travel as `torch.save` writes them and are read without executing a pickle.
"""

from __future__ import annotations

import contextlib
import datetime
import io
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
from reid.io.checkpoint import SAFE_GLOBALS

Value = TypeVar("Value")

JOIN = 300.0  # seconds to wait for the others at the start
WAIT = 7200.0  # and in the middle, where the first may be decoding or ranking a million images
PATIENCE = 3.0  # seconds that the first has to tell what all have met
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    *((InputError, 2), (OSError, 2), (Diverged, 1)),
    *((Interrupted, 130), (KeyboardInterrupt, 130)),
)


@dataclass(frozen=True)
class Place:
    """rank: of this process among `world`. local: its number on this host, among `local_world`."""

    rank: int = 0
    world: int = 1
    local: int = 0
    local_world: int = 1


def place() -> Place:
    """What torchrun's variables say, one process alone without them. Raises InputError where they make no sense."""
    names = ("RANK", "WORLD_SIZE")
    found = {name: os.environ[name] for name in (*names, "LOCAL_RANK", "LOCAL_WORLD_SIZE") if os.environ.get(name)}
    if not any(name in found for name in names):
        return Place()
    told = ", ".join(f"{name}={value}" for name, value in found.items())
    start = "start with torchrun, which sets all of them, or unset them"
    try:
        rank, world = (int(found.get(name, 0)) for name in names)
        local, local_world = int(found.get("LOCAL_RANK", rank)), int(found.get("LOCAL_WORLD_SIZE", world))
    except ValueError:
        raise InputError(f"{told}: these must be whole numbers; {start}") from None
    if (rank, world) == (0, 1):
        return Place()
    missing = [name for name in (*names, "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InputError(f"{told}, but {' and '.join(missing)} not set; {start}")
    if not (0 <= rank < world and 0 <= local < local_world <= world and local <= rank):
        raise InputError(f"{told}: there is no such process; {start}")
    return Place(rank, world, local, local_world)


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _joined() else 0


def world() -> int:
    """How many processes work together."""
    return dist.get_world_size() if _joined() else 1


def first() -> bool:
    """Whether this is the process that writes, prints and shows bars."""
    return rank() == 0


@contextlib.contextmanager
def processes(*, join: float = JOIN, wait: float = WAIT) -> Iterator[Place]:
    """Work together inside with the other processes that torchrun has started; nothing where there are none.

    Only the first prints. join, wait: seconds for the others to appear, and for any of them to come to where all meet.
    However one process ends, all do, and one of them tells why: the others leave by SystemExit with its exit code.
    Raises InputError where the others don't appear or are lost without a word.
    """
    here = place()
    if here.world == 1:
        yield here
        return
    store = _join(here, join, wait)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(sys.stdout if first() else nowhere):
            yield here
        barrier()
    except BaseException as error:
        # No farewell to the group: it could wait for processes that are not there any more.
        parting = _parting(store, here, error)
        if parting is error:
            raise
        raise parting from None
    dist.destroy_process_group()


def broadcast(value: Value) -> Value:
    """The first process's value: plain values and tensors, which arrive on the CPU."""
    if world() == 1:
        return value
    packed = _packed(value) if first() else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor(len(packed))
    dist.broadcast(size, 0)
    data = packed if first() else torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(data, 0)
    return value if first() else _unpacked(data)


def gather(value: Value) -> list[Value]:
    """The values of all processes in their order, on the first one; elsewhere none."""
    if world() == 1:
        return [value]
    packed = _packed(value)
    sizes = [torch.tensor(0) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor(len(packed)))
    if not first():
        dist.send(packed, 0)
        return []
    values = [value]
    for other, size in enumerate(map(int, sizes[1:]), 1):
        data = torch.empty(size, dtype=torch.uint8)
        dist.recv(data, other)
        values.append(_unpacked(data))
    return values


def on_first(compute: Callable[[], Value]) -> Value:
    """What the first process computes, for all."""
    return broadcast(compute()) if first() else broadcast(None)  # type: ignore[return-value]


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors, on any device, by those of the first process."""
    if world() == 1:
        return
    for tensor in tensors:
        whole = tensor.contiguous()
        dist.broadcast(whole, 0)
        if whole is not tensor:
            tensor.copy_(whole)


def largest(value: int) -> int:
    """The largest of the processes' values, for all. On CPUs, so that a lost process is noticed at once."""
    if world() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def barrier() -> None:
    """Wait for all."""
    largest(0)


def part_of(count: int, rank: int, world: int) -> slice:
    """Which of `count` things in a row process `rank` of `world` takes; all parts together are all of them."""
    return slice(rank * count // world, (rank + 1) * count // world)


@contextlib.contextmanager
def one_a_host_first() -> Iterator[None]:
    """One process of every host goes ahead, to unpack and decode what the others then find."""
    ahead = world() == 1 or place().local == 0
    if not ahead:
        barrier()
    yield
    if ahead:
        barrier()


def command_again(arguments: Sequence[str]) -> str:
    """The command line that starts this program again in as many processes; arguments: those after its name."""
    here = place()
    if here.world == 1:
        return shlex.join([sys.executable, sys.argv[0], *arguments])
    if here.local_world == here.world:
        launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(here.world))
        return shlex.join([sys.executable, *launcher, sys.argv[0], *arguments])
    return f"torchrun, on every host as before, with {shlex.join([sys.argv[0], *arguments])}"


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _join(here: Place, join: float, wait: float) -> dist.Store:
    limit = datetime.timedelta(seconds=join)
    if here.local < torch.cuda.device_count():
        torch.cuda.set_device(here.local)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", here.rank, here.world, timeout=limit)))
        # Without this, who dies before the group is there would be waited for as long as in the middle.
        store.set(f"here/{here.rank}", "")
        store.wait([f"here/{other}" for other in range(here.world)], limit)
        dist.init_process_group(
            backend, store=dist.PrefixStore("group", store), rank=here.rank, world_size=here.world,
            timeout=datetime.timedelta(seconds=wait),
        )  # fmt: skip
    except (RuntimeError, ValueError, OSError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(
            f"process {here.rank} of {here.world} did not find the others at {where} within {join:.0f} s; were all "
            f"started, with one address and port that every host can reach? ({str(error).splitlines()[0][:200]})"
        ) from None
    return store


def _parting(store: dist.Store, here: Place, error: BaseException) -> BaseException:
    """What to leave by: the error where this process is to tell it, else only the exit code of the one that did."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), 1)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
    try:
        if here.rank or _lost(error):
            with contextlib.suppress(dist.DistStoreError):
                store.wait(["told"], datetime.timedelta(seconds=PATIENCE))
        if store.add("telling", 1) > 1:
            code = int(store.get("told"))
            # Until it has told and is gone: torchrun ends the others with the first that leaves.
            with contextlib.suppress(RuntimeError, KeyboardInterrupt):
                barrier()
            return SystemExit(code)
        store.set("told", str(2 if _lost(error) else code))
    except (RuntimeError, ValueError, OSError):
        pass  # the store was with a process that is gone
    if not _lost(error):
        return error
    return InputError(
        f"process {here.rank} of {here.world} has lost another one, which was killed or cannot be reached any more; "
        "what was saved is whole: start again to go on"
    )


def _lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone; gloo raises bare RuntimeErrors, which name its files."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(name in str(error) for name in ("gloo", "NCCL"))
    )


def _packed(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)


def _unpacked(data: Tensor) -> Any:
    with torch.serialization.safe_globals(SAFE_GLOBALS):
        return torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True, map_location="cpu")
