"""What `scripts/train_speech.py` stands on: labels from clips and curves, and their augmentation."""
