"""Things done per frame: sources, the live loop, sinks, WebRTC, the latency ledger."""

__version__ = "0.1.0"
