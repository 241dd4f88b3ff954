"""Head model, G-buffer, generators, speech, and the compilers that run their networks."""
