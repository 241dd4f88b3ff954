"""The head 3DMM: the model, what is fitted to landmarks, and where landmarks come from."""
