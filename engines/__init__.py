"""Head model, G-buffer, trackers, generators and the compilers that run their networks."""
