"""`load_openvino`: OpenVINO without the part of it that reports to its maker. Nothing else imports it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, cast

_REPORTER = "openvino_telemetry"


def load_openvino() -> Any:
    """The module `openvino`; raises ImportError where it is missing.

    When it is imported its `tools.ovc` looks up a host of its maker's and writes an ID under the home folder, by a
    package of its own; where that cannot be imported it goes without. visavis never asks the network.
    """
    sys.modules.setdefault(_REPORTER, cast(ModuleType, None))  # None: an import of it raises ImportError
    return importlib.import_module("openvino")
