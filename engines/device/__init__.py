"""Drawing on a GPU from end to end: one upload of a frame, everything in one stream, one download.

- `rows`, `packet`: what lies on the device of a call, and what is sent to it for a frame.
- `sampling`, `filters`, `rasteriser`: look-ups, small linear filters and a rasteriser of fixed shapes.
- `sizes`, `person`, `warp`, `contours`, `hidden`, `eyes`, `mouth`, `geometric`: the geometric picture, a stage each.
- `visavis`, `window`: what the networks of each generator add to it. - `composite`: over the background.
- `recorded`, `batch`, `schedule`: a drawing as a CUDA graph; many calls' drawings at once, and when.
- `telling`, `enrolled`: what the CPU works out of a frame and of a photo. They alone need OpenCV.
- `renderer`: the edge; which falls back to the CPU.

All but `telling`, `enrolled` and `renderer` need torch and NumPy alone. Pictures are (B, C, H, W) float32 of whole
numbers 0 … 255, rounded where OpenCV rounds; nothing waits for the device, and no shape depends on data.
"""
