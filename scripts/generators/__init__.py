"""Training of generators: pairs, what a training reads, the loop, and a task for each generator."""
