"""Things done once: enroll a photo, take the driver's neutral."""
