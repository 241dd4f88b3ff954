"""What every training shares; needs torch, NumPy, OpenCV and nothing else (curves: matplotlib, where it is there).

- `task`: what a network brings to be trained.
- `loop`: the training itself, resumable to the step.
- `average`: the moving average of the weights.
- `ahead`: batches made ahead in threads.
- `table`: the log, and curves of it.
- `errors`: what stops a training.
"""
