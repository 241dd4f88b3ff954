"""`multiguidance`: computed flow, occlusion and rendered face guide how the photo is warped and completed (paper 001)."""
