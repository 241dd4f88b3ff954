"""`idmatch`, after "High-Fidelity Face Reenactment Via Identity-Matched Correspondence Learning" (paper 004).

Only the abstract and the list of references are at hand. What the abstract says, and nothing less, is here; every
number, layer and loss is ours, and what it is taken from is said.

What the abstract says, and how it is done:

- PNCC is rebuilt "with the source identity parameters and the target pose and expression parameters": `Motion` carries
  no identity, so `Scene.pncc()` is always the rebuilt one, and `Scene.own_pncc()` the source representation. What the
  rebuilding is worth is measured by the evaluation's `idmatch-driver-identity`; pairs to train on show one person,
  whose PNCC is the rebuilt one either way, so there is no such switch for training.
- "Correspondence between the reconstructed representation and the source representation based on the features
  extracted by an encoder network", (1) and (2); "utilized to animate the source face using a novel feature
  transformation strategy", (3) and (4); a "geometry-aware skip connection", (6); unseen faces without tuning: nothing
  is learned of a person, all that depends on the photo alone is made once and kept in the avatar.

With i a cell of the driven window, j of the photo (32 × 32 at a window of 256), s the photo's PNCC, t the rebuilt:

 (1) `k(i) = unit(e(i) + f(i))`: f by the encoder network from PNCC, coverage and places; e an embedding
 (2) `A(i, j) = softmax_j(k_t(i) · k_s(j) / τ)`, τ = 0.01
 (3) `F_t(i) = Σ_j A(i, j) F_s(j)`, and the photo in cells likewise
 (4) `w(i) = Σ_j A(i, j) y(j) − x(i)`, y solved from `Σ_j A_ss(i, j) y(j) = x(i)`
 (5) `w' = up(w) + 0.05 tanh(Δ)` at a quarter of the window
 (6) `σ_l = SPADE(F_s,l(x + w'(x)); PNCC_t)` at each level l of the generator, beside what comes from below
 (7) `picture = photo(x + w'(x)) + residual`, premultiplied RGBA

Choices, all ours:

- (1) The encoder sees PNCC without the photo, and there is one for both sides: both are of one kind, so that what is
  alike finds itself whoever it is. It also sees where its cells are (as CoordConv), or all that the head does not cover
  would look alike. e is fixed: waves of code and place (Fourier features) whose cosine falls with distance like a bell,
  code where the head covers the cell, place elsewhere. f's last layer is zero at first. The correspondence is thus
  right within about a pixel before anything is learned, and no batch of thousands is needed to find one.
- Hair and shoulders have no PNCC: a driven cell beyond the head is asked for by the place from which the computed flow
  around it comes (`around`), which fades to its own place; the encoder may learn better.
- (2) As CoCoSNet (Zhang et al. 2020, in the list), whose α is 100; at 32² where theirs is 64²; cosines without its
  removal of the mean. Full precision always.
- (3) and (4) share A: the features of a cell and the place it is taken from are means over the same weights. Expected
  places alone are drawn inward at the rim of the head; with the answers y nothing moves at the photo's own pose.
- (5) The correspondence is told in cells of 8 px; what the generator's quarter level adds, at first nothing, sharpens
  it. Up-sampling is bilinear; the same w' warps skips, photo and, at full resolution in a call, the photo itself.
- (6) Skips are warped first, or they would bring the photo's pose; at the level of a quarter by w alone, for Δ follows
  from it. SPADE with its instance norm (Park et al. 2019, in the list); no other norms.
- (7) What is drawn is added to the warped photo, at first nothing: sharpness is the photo's own.
- Losses: L1, heavier on the head and most so on the mouth; L1 of the matte; perceptual (Johnson et al. 2016, in the
  list) on EfficientNet-Lite0 as LPIPS compares; hinge and feature matching of one patch discriminator that sees the
  rebuilt PNCC beside; L1 of the photo warped, weighted alike; `geometry`, w and the computed flow where the photo
  shows the place; `cycle`, CoCoSNet's; a small Δ. `geometry` and `cycle` hold the correspondence where few samples say
  little.
- Sizes: `FULL_SIZE` is as wide as CoCoSNet's and SPADE's generators; the default is what ships.

Switches: `correspondence` (instead: the computed flow, carried beyond the head, by which features are sampled), `skips`
(none).

Deviations from any paper of its kind: our full-head 3DMM for its face model; RGBA in and out, losses over the plate;
in (7) eyeballs, falling lids and the mouth's inside, which are drawn, lie over the photo warped (`networked.openings`).

- `correspondence`: (1) without the encoder, (2) to (4). - `networks`: the rest. - `blueprint`: inputs and losses.
"""
