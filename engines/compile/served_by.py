"""`ServedBy`: which engine took a network the last time, and why those before it did not; for `visavis doctor`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engines.compile.exports import engine_cache_folder
from engines.files import write_whole

_ENDING = ".tier.json"


@dataclass(frozen=True, slots=True)
class ServedBy:
    """`tier` served; `refused`: (name, reason) of each engine that did not, in the order they were to be tried."""

    tier: str
    refused: tuple[tuple[str, str], ...] = ()

    def keep(self, key: str) -> None:
        """Write it for the network `key`; a folder that cannot be written is nobody's trouble here."""
        with suppress(OSError):
            path = _path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            told = {"tier": self.tier, "refused": [{"engine": n, "reason": r} for n, r in self.refused]}
            write_whole(path, json.dumps(told, ensure_ascii=False))

    @staticmethod
    def all() -> dict[str, ServedBy]:
        """The newest of each network by its name, whatever its weights were; without those that cannot be read."""
        found: dict[str, tuple[int, ServedBy]] = {}
        for path in engine_cache_folder().glob(f"*{_ENDING}"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_bytes())
                refused = tuple((str(r["engine"]), str(r["reason"])) for r in told["refused"])
                name, when = _name_of(path), path.stat().st_mtime_ns
                if name not in found or found[name][0] < when:
                    found[name] = when, ServedBy(str(told["tier"]), refused)
        return {name: served for name, (_, served) in sorted(found.items())}


def _path(key: str) -> Path:
    return engine_cache_folder() / f"{key}{_ENDING}"


def _name_of(path: Path) -> str:
    """A key is a name, its weights and its source, by hyphens."""
    return path.name.removesuffix(_ENDING).rsplit("-", 2)[0]
