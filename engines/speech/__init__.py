"""Speech → motion: streaming features, the causal network, and what makes a `Motion` of its answer."""
