"""Loads the build of the core that lies beside this file, in the place of the installed one, into every Python that is started
with PYTHONPATH=build/NAME (make NAME): see the Makefile."""

import importlib.util
import sys
from pathlib import Path

NAME = "dgmp._core.native"
spec = importlib.util.spec_from_file_location(NAME, Path(__file__).with_name("native.so"))
sys.modules[NAME] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[NAME])
