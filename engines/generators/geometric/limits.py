"""The numbers of a geometric picture that its OpenCV drawing and its twin on a device (`engines.device`) share."""

GRID_PX = 160  # of the longer side of the grid on which the head is rasterised
MARGIN = 0.12  # the canvas reaches beyond the viewport by this share, so that edges have something to show

# what lies behind the head
FIXED_POINT_ROUNDS = 3
# coverage of 255 from which the head is drawn: no sum of shares in eighths or tenths is just that
HEAD_FROM = 127.3
RIM_SIGMA_PX = 3.0  # of the G-buffer's grid
# of the picture's width: what moves less beside the head stays, to the bit
RIM_STILL, RIM_MOVES = 0.001, 0.002

# where one surface passes before another
CONTOUR_DEPTH = 0.05  # a depth step of this share of the grid's height is one surface before another
# of the grid's height: so much further back, for telling a contour, lies what does not go with the head
CONTOUR_BEHIND = 0.5
CONTOUR_PX = 1.5  # what moves less than this against each other needs no contour
STEP_PX = 2.0  # below this a contour's two sides may as well be interpolated
SEEN = 0.5

# what the photo hides
LEAST_WEIGHT = 0.02
MOVED_FROM, MOVED_FULL = 0.004, 0.012  # of the picture's height: what moves less is the photo's own
RIM_PX = 5  # of the grid: the matte's soft rim, which stays transparent along the contour
BESIDE_PX = 9  # a square of the grid in whose middle nothing is transparent where some of it is drawn from the texture
BESIDE_CLEAR = 0.25  # what is clearer than this there is all texture

INSIDE_SIGMA_PX = 0.7  # how soft the mouth's inside is
INSIDE_DEPTH_HU = 1.0  # this far behind the lips light falls by e
INSIDE_DEEPEST = 0.6  # where nothing is drawn
INSIDE_NEAREST = 0.85  # the light on the tongue's tip
# how the mouth's inside is told apart
CAVITY, TONGUE, UPPER_TEETH, LOWER_TEETH = 0.2, 0.4, 0.6, 0.8
