"""Exported networks kept between starts: OpenVINO's two files and their sha256, named after network and weights."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from engines.compile.kept_engine import say_not_kept
from engines.compile.openvino_import import load_openvino
from engines.files import write_whole

logger = logging.getLogger(__name__)


def engine_cache_folder() -> Path:
    """Where exported networks are kept between starts."""
    return user_cache_path("visavis", appauthor=False) / "engines"


def read_export(core: Any, path: Path) -> Any | None:
    """The network kept at `path` (.xml), or None when there is none or it is damaged: then it is exported again."""
    if not path.is_file():
        return None
    try:
        digest = path.with_suffix(".sha256").read_text(encoding="ascii").strip()
        if digest != _digest(path.read_bytes(), path.with_suffix(".bin").read_bytes()):
            raise ValueError("its sha256 does not match")
        return core.read_model(path)
    except Exception as error:
        logger.warning("the kept engine %s is damaged (%s): it is made again", path, error)
        return None


def keep_export(network: Any, path: Path) -> None:
    """Keep `network` at `path` (.xml); a cache that cannot be written is no reason to stop."""
    try:
        write_export(network, path)
    except (OSError, RuntimeError) as error:  # OpenVINO says RuntimeError when the disk is full
        say_not_kept(path.parent, error)


def write_export(network: Any, path: Path) -> None:
    """Write `network` to `path` (.xml) and beside it, as `read_export` reads it. Raises OSError, RuntimeError."""
    ov = load_openvino()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        ov.save_model(network, made, compress_to_fp16=False)
        graph, weights = made.read_bytes(), made.with_suffix(".bin").read_bytes()
    # the digest last: a set that is not whole does not match it
    write_whole(path.with_suffix(".bin"), weights)
    write_whole(path, graph)
    write_whole(path.with_suffix(".sha256"), _digest(graph, weights))


def _digest(graph: bytes, weights: bytes) -> str:
    digest = hashlib.sha256(graph)
    digest.update(weights)
    return digest.hexdigest()
