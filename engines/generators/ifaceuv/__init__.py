"""ifaceuv: paper 000, a refined texture rendered over the warped photo, edited into the picture."""
