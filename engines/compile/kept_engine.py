"""`KeptEngine`: a built engine in one file, known again by all that it was built from.

What is damaged, half written, or of something else than its name says counts as not there, and is built again. Two
processes may build the same at once: each writes whole, and either file is right.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from engines.files import write_whole

logger = logging.getLogger(__name__)

FORMAT = "visavis-engine-1"
ENDING = ".engine"


@dataclass(frozen=True, slots=True)
class KeptEngine:
    """Where an engine lies, and what it must say of itself.

    - `network`: its key, of name, weights and source.
    - `built_from`: engine, library versions, target or card, shapes, precision, whatever else makes another engine.
    """

    folder: Path
    network: str
    built_from: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The file; its name is the network's key and a digest of the rest."""
        return (
            self.folder / f"{self.network}-{hashlib.sha256(self._told().encode()).hexdigest()[:12]}{ENDING}"
        )

    def read(self) -> bytes | None:
        """The engine; None where there is none that is whole and this one."""
        path = self.path
        try:
            if not path.is_file():
                return None
            with safe_open(str(path), framework="numpy") as file:
                said = dict(file.metadata() or {})
                data: bytes = file.get_tensor("engine").tobytes()
            if said.get("format") != FORMAT or said.get("built_from") != self._told():
                raise ValueError("it is another engine")
            if said.get("sha256") != hashlib.sha256(data).hexdigest():
                raise ValueError("its sha256 does not match")
            return data
        except (
            Exception
        ) as error:  # whatever a damaged file does to a reader, and a folder that may not be looked into
            logger.warning("the kept engine %s cannot be read (%s): it is made again", path, error)
            return None

    def keep(self, engine: bytes) -> None:
        """Write it, whole or not at all. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = {
            "format": FORMAT,
            "built_from": self._told(),
            "sha256": hashlib.sha256(engine).hexdigest(),
        }
        write_whole(self.path, save({"engine": np.frombuffer(engine, np.uint8)}, told))

    def read_or_build(self, build: Callable[[], bytes]) -> bytes:
        """The engine, built where it is not kept; a folder that cannot be written is no reason to stop."""
        engine = self.read()
        if engine is None:
            engine = build()
            try:
                self.keep(engine)
            except OSError as error:
                say_not_kept(self.folder, error)
        return engine

    def _told(self) -> str:
        return json.dumps({"network": self.network, **self.built_from}, sort_keys=True)


def say_not_kept(folder: Path, error: Exception) -> None:
    """One sentence for all networks: a command line tells it once."""
    logger.warning(
        "compiled networks cannot be kept in %s (%s), so each start compiles them anew; set XDG_CACHE_HOME to a "
        "folder that may be written",
        folder,
        getattr(error, "strerror", None) or error,
    )
