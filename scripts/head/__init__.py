"""How the head model is made: CC0 geometry, landmark embedding, bases learned from tracks."""
