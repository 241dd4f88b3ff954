"""Where each frame's time goes: ledger, metrics, traces and reports."""
