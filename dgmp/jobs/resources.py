"""What jobs hold while they run: Ps with their cores (--cpus), declared memory (--mem), and named resources (--resource gpu=1).

A `Resources` is what there is.  A job with a `Need` gets all of it at once, a `Held`, or waits; it gives it back as it ends.
No I/O, no clock: the launcher and the daemon's keeper use the same.

--cpus N: the job holds N Ps, is bound to their cores, and is told of them in DGMP_CPUS and in the variables by which OpenMP
and the BLAS libraries take their number of threads.  --mem SIZE: a declaration, by which jobs are admitted as long as their
sum fits the machine (or its cgroup); what a job really takes is not watched.  --resource NAME=N: N units of what
--resource-total NAME=M (or DGMP_RESOURCES="NAME=M ...") declares; the units a job holds are in DGMP_RESOURCE_NAME, and for
gpu in CUDA_VISIBLE_DEVICES as well.  A total may list its units: gpu=[0,3] or gpu=[GPU-8f3a,GPU-77b1].  Of more than
1,024 units, such as bytes of scratch space, only the amount counts, and is what the variable says.

A need that could never be met is an error at once (`NeverFits`), not a job that waits for ever.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from ..errors import DgmpError
from . import amounts

UNITS = 1024  # of these each has a name
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
                    "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
VISIBLE = {"gpu": "CUDA_VISIBLE_DEVICES"}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
OWN = ("cpus", "mem")  # no names of resources: they have options


class NeverFits(DgmpError):
    """A job needs more than there is."""


class Need(NamedTuple):
    """What a job needs to start."""

    cpus: int = 0  # 0: a slot, no core of its own
    mem: int = 0
    named: Mapping[str, int] = {}


class Held(NamedTuple):
    """What a job has."""

    cores: tuple[int, ...] = ()
    mem: int = 0
    named: Mapping[str, tuple[str, ...] | int] = {}  # its units, or of too many to have names, how many

    def variables(self) -> dict[str, str]:
        """What the job is told of it in its environment."""
        told = {}
        if self.cores:
            told["DGMP_CPUS"] = ",".join(map(str, self.cores))
            told.update(dict.fromkeys(THREAD_VARIABLES, str(len(self.cores))))
        if self.mem:
            told["DGMP_MEM"] = str(self.mem)
        for name, units in self.named.items():
            value = str(units) if isinstance(units, int) else ",".join(units)
            told[variable(name)] = value
            if name in VISIBLE:
                told[VISIBLE[name]] = value
        return told


def variable(name: str) -> str:
    """In which a job is told what it has of a named resource."""
    return "DGMP_RESOURCE_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


class Resources:
    """What there is, and what of it is free.

    Args:
        cores: the Ps' cores.
        mem: bytes.
        totals: name -> its units, or how many there are of more than have names (totals()).

    Example:
        >>> have = Resources([0, 1], 1 << 30, {"gpu": ("0", "1")})
        >>> held = have.acquire(Need(cpus=1, named={"gpu": 1}))
        >>> held.cores, held.variables()["CUDA_VISIBLE_DEVICES"]
        ((0,), '0')
        >>> have.acquire(Need(cpus=2)) is None
        True
        >>> have.release(held)
    """

    def __init__(self, cores: Iterable[int], mem: int, totals: Mapping[str, tuple[str, ...] | int] | None = None) -> None:
        self.cores = sorted(cores)
        self.mem = self.most_mem = mem
        self.most_cores = len(self.cores)
        self.totals = dict(totals or {})
        self.order = {name: {unit: i for i, unit in enumerate(units)}
                      for name, units in self.totals.items() if not isinstance(units, int)}
        self.named: dict[str, list[str] | int] = {name: units if isinstance(units, int) else list(units)
                                                  for name, units in self.totals.items()}

    def check(self, need: Need) -> None:
        """Whether it could be met, were all free.

        Raises:
            NeverFits: and why not.
        """
        if need.cpus > self.most_cores:
            raise NeverFits(f"a job needs {need.cpus} cpus, and there {'is' if self.most_cores == 1 else 'are'} "
                            f"{self.most_cores}: ask for fewer with --cpus")
        if need.mem > self.most_mem:
            raise NeverFits(f"a job needs {amounts.spoken_size(need.mem)} of memory, and there is "
                            f"{amounts.spoken_size(self.most_mem)}: ask for less with --mem")
        for name, wanted in need.named.items():
            if name not in self.totals:
                raise NeverFits(f"a job needs {name}={wanted}, and nobody has said how much of {name} there is: add "
                                f"--resource-total {name}=N, or set DGMP_RESOURCES={name}=N")
            units = self.totals[name]
            have = units if isinstance(units, int) else len(units)
            if wanted > have:
                raise NeverFits(f"a job needs {name}={wanted}, and there are {have}: ask for less with --resource, or say with "
                                f"--resource-total how much there is")

    def acquire(self, need: Need) -> Held | None:
        """All of it, or None: not now."""
        if need.cpus > len(self.cores) or need.mem > self.mem:
            return None
        for name, wanted in need.named.items():
            free = self.named.get(name, 0)
            if wanted > (free if isinstance(free, int) else len(free)):
                return None
        cores = tuple(self.cores[:need.cpus])
        del self.cores[:need.cpus]
        self.mem -= need.mem
        return Held(cores, need.mem, {name: self.take(name, wanted) for name, wanted in need.named.items()})

    def acquire_again(self, need: Need, told: Mapping[str, str]) -> Held:
        """For a process that has it already, and was told so in these variables: the same cores and units, if they are free."""
        cores = told.get("DGMP_CPUS", "").split(",")
        units = {name: told.get(variable(name), "").split(",") for name in need.named}
        self.sort(lambda core: str(core) not in cores, lambda name, unit: unit not in units.get(name, ()))
        held = self.acquire(need) or Held()
        self.sort(lambda core: core, lambda name, unit: self.order[name][unit])
        return held

    def sort(self, of_core: Callable[[int], int], of_unit: Callable[[str, str], int]) -> None:
        """What is free, by these: the first ones are taken first."""
        self.cores.sort(key=of_core)
        for name, free in self.named.items():
            if isinstance(free, list):
                free.sort(key=partial(of_unit, name))

    def take(self, name: str, wanted: int) -> tuple[str, ...] | int:
        free = self.named[name]
        if isinstance(free, int):
            self.named[name] = free - wanted
            return wanted
        taken = tuple(free[:wanted])
        del free[:wanted]
        return taken

    def release(self, held: Held) -> None:
        """A job has ended."""
        self.cores = sorted((*self.cores, *held.cores))
        self.mem += held.mem
        for name, units in held.named.items():
            free = self.named[name]
            if isinstance(free, int):
                assert isinstance(units, int)
                self.named[name] = free + units
            else:
                assert not isinstance(units, int)
                self.named[name] = sorted((*free, *units), key=self.order[name].__getitem__)


def need(cpus: int | None, mem: str | None, named: Iterable[str]) -> Need:
    """What --cpus, --mem and --resource NAME=N say.

    Raises:
        ValueError: they do not.
    """
    if cpus is not None and cpus < 1:
        raise ValueError(f"--cpus {cpus}: give a whole number of at least 1")
    try:
        bytes_ = amounts.size(mem) if mem is not None else 0
    except ValueError as e:
        raise ValueError(f"--mem {mem}: {e}") from None
    wanted = {}
    for text in named:
        name, _, number = text.partition("=")
        wanted[name] = amount("--resource", text, name, number)
    return Need(cpus or 0, bytes_, {name: number for name, number in wanted.items() if number})


def totals(texts: Iterable[str], visible: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...] | int]:
    """What --resource-total NAME=N, or NAME=[unit,unit], and the words of DGMP_RESOURCES say.

    Args:
        visible: name -> the units that a mere number counts.

    Raises:
        ValueError: they do not.
    """
    found: dict[str, tuple[str, ...] | int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if number.startswith("[") and number.endswith("]") and NAME.fullmatch(name) and name not in OWN:
            units = tuple(unit.strip() for unit in number[1:-1].split(",") if unit.strip())
            if len(set(units)) != len(units):
                raise ValueError(f"--resource-total {text}: a unit is there twice")
            found[name] = units
        else:
            n = amount("--resource-total", text, name, number)
            known = visible.get(name, ())
            found[name] = n if n > UNITS else known[:n] if n <= len(known) else tuple(map(str, range(n)))
    return found


def amount(option: str, text: str, name: str, number: str) -> int:
    """How much of it; ValueError."""
    if name in OWN:
        raise ValueError(f"{option} {text}: {name} is no named resource, it has an option of its own: --{name}")
    try:
        if NAME.fullmatch(name):
            return amounts.size(number)
    except ValueError:
        pass
    raise ValueError(f"{option} {text}: give a name and a number, such as gpu=1 or scratch=20G")


def declared(given: Iterable[str], environ: Mapping[str, str]) -> dict[str, tuple[str, ...] | int]:
    """The totals of this machine: as given, else as DGMP_RESOURCES says, and gpus else as CUDA_VISIBLE_DEVICES and /dev say.

    A number of gpus counts within CUDA_VISIBLE_DEVICES, where that is set: of 2,3 the total gpu=2 are the units 2 and 3.

    Raises:
        ValueError: they say nothing.
    """
    limited = {name: tuple(unit.strip() for unit in environ[variable].split(",") if unit.strip())
               for name, variable in VISIBLE.items() if variable in environ}
    here = {"gpu": nvidia_devices(), **limited}
    return {**{name: units for name, units in here.items() if units},
            **totals(environ.get("DGMP_RESOURCES", "").split(), limited), **totals(given, limited)}


def nvidia_devices(folder: str = "/dev") -> tuple[str, ...]:
    try:
        numbers = [name[6:] for name in os.listdir(folder) if re.fullmatch(r"nvidia[0-9]+", name)]
    except OSError:
        return ()
    return tuple(sorted(numbers, key=int))
