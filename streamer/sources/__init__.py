"""Where what drives comes from: pictures of a camera or a video, sound of a microphone or a file."""
