// The last step of drawing: a person over a background.
#include "grid.h"

// rgba (n, 4), premultiplied, over behind (n, 3) → out (n, 3); as `composite.composite` does it, to the bit.
void visavis_over(const u8 *restrict rgba, const u8 *restrict behind, u8 *restrict out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        unsigned clear = 255u - rgba[4 * i + 3];
        for (int c = 0; c < 3; c++) {
            unsigned m = behind[3 * i + c] * clear + 128u;
            // m / 255, rounded: exact for all products of two bytes
            unsigned v = rgba[4 * i + c] + ((m + (m >> 8)) >> 8);
            out[3 * i + c] = (u8)(v > 255u ? 255u : v);
        }
    }
}
