"""pwm, paper 002: what a photo shows is warped, looked at, and the next warp estimated, from coarse to fine."""
