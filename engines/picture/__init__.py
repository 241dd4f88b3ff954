"""From the drawn person to the finished picture: background, what the photo does not show, only the box that moves."""
