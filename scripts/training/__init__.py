"""How generators are trained: pairs of one person cached on disk, losses, a resumable loop."""
