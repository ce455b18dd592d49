"""What pyproject.toml cannot say: the C11 core, built against the stable ABI (one wheel for CPython 3.11 and newer)."""

import os
import shutil
import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


def refuse(why):
    sys.exit(f"error: dgmp {why}")


class BuildCore(build_ext):
    """Says in one line what is missing, instead of a page of compiler output."""

    def build_extensions(self):
        compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
        if shutil.which(compiler) is None:
            refuse(f"needs a C compiler to build its core, and there is no {compiler!r}: install gcc "
                   "(Debian, Ubuntu: apt install gcc; Fedora: dnf install gcc)")
        super().build_extensions()


class StableWheel(bdist_wheel):
    def finalize_options(self):
        self.py_limited_api = "cp311"
        super().finalize_options()


if not sys.platform.startswith("linux"):
    refuse("runs on Linux only (memfd, futex, pidfd)")
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    refuse("does not support free-threaded Python builds; use a build with the GIL")

setup(
    ext_modules=[
        Extension(
            "dgmp._core.native",
            sources=sorted(glob("dgmp/_core/*.c")),
            depends=sorted(glob("dgmp/_core/*.h")),
            define_macros=[("Py_LIMITED_API", "0x030b0000")],
            extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror=implicit-function-declaration",
                                "-fvisibility=hidden", "-pthread"],
            extra_link_args=["-pthread"],
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildCore, "bdist_wheel": StableWheel},
)
