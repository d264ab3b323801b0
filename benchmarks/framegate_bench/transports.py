"""The contestants of the shared-memory questions: how each program is started."""

from framegate_bench.comparison import Case, Contestant

SIZES = {
    "64 B": 64,
    "4 KiB": 4096,
    "1 MiB": 1 << 20,
    "6.2 MB": 1920 * 1080 * 3,
    "24.9 MB": 3840 * 2160 * 3,
}
"""Smallest to 4K RGB; 6.2 MB is 1080p RGB."""


def python(name: str, venv: str, transport: str) -> Contestant:
    """A transport of `apps/shm_transports.py`."""
    return Contestant(name, venv, ("{bin}/python", "{apps}/shm_measure.py", transport))


def cpp(name: str, *arguments: str, is_limit: bool = False) -> Contestant:
    """framegate from C++, or a limit of the machine, which the same program measures."""
    command = ("{bin}/shm_framegate", *arguments)
    return Contestant(name, "native-framegate", command, is_limit)


def rust(name: str, *arguments: str) -> Contestant:
    """iceoryx2 from Rust."""
    return Contestant(name, "native-iceoryx2", ("{bin}/shm_iceoryx2", *arguments))


FRAMEGATE = python("framegate", "framegate", "framegate")
FRAMEGATE_SPIN = python("framegate, spinning", "framegate", "framegate-spin")
ICEORYX2 = python("iceoryx2", "iceoryx2", "iceoryx2")
ICEORYX2_SPIN = python("iceoryx2, spinning", "iceoryx2", "iceoryx2-spin")
SHMX = python("shmx, spinning (Python 3.13)", "shmx", "shmx")
ZMQ = python("pyzmq", "pyzmq", "zmq")
ZMQ_NO_COPY = python("pyzmq, copy=False", "pyzmq", "zmq-nocopy")
# Of the standard library, in the same environment as framegate.
SOCKET = python("Unix socket", "framegate", "socket")
PIPE = python("multiprocessing.Pipe", "framegate", "pipe")
PICKLED = python("as multiprocessing.Queue", "framegate", "pickled")
SHARED_MEMORY = python("SharedMemory and copy", "framegate", "shared-memory")

ALL = (
    FRAMEGATE, FRAMEGATE_SPIN, ICEORYX2, ICEORYX2_SPIN, SHMX, ZMQ, ZMQ_NO_COPY, SOCKET, PIPE,
    PICKLED, SHARED_MEMORY,
)  # fmt: skip


def by_size(
    mode: tuple[str, ...],
    metrics: tuple[str, ...],
    limits: dict[str, tuple[str, ...]] | None = None,
    others: tuple[Contestant, ...] = ALL,
) -> tuple[Case, ...]:
    """A case for every size; `limits` take part in the named ones.

    `mode` comes behind the arguments of the contestants, so it is empty where they have one.
    """
    named = limits or {}
    cases = []
    for title, size in SIZES.items():
        allowed = tuple(name for name, titles in named.items() if title in titles)
        contestants = (*(one.name for one in others), *allowed)
        cases.append(Case(title, title, (*mode, "--size", str(size)), metrics, contestants))
    return tuple(cases)
