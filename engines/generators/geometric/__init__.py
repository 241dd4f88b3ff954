"""`geometric`: the photo warped by computed flow, without networks; the floor and the fallback."""
