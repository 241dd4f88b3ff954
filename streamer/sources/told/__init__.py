"""Motion told by phones and other programs over UDP: a dialect each, all behind the source contract."""
