"""`multiguidance`: computed flow, occlusion and rendered face guide how a photo is warped (paper 001)."""
