"""Head models from a user's own files, brought to what ours is like: ICT-FaceKit, FLAME, BFM (docs/head-models.md)."""
