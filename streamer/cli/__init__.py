"""The command line, `visavis`."""
