"""What this computer has: devices, and the doctor that names what is missing."""
