// The posed head on a grid: which place of the UV atlas, which part and how far each pixel shows.
#include "grid.h"

// Draw triangles (T, 3), those that face the camera of the `count` chosen ones, nearest first to last.
// points (N, 3): x and y in grid pixels, z away; colours (T, 3, c) of their corners, or uv (N, 2) of their vertices
// where `uv` is not null; parts (T,); `inner` triangles lie `push` further away. On exit depth (h, w) is
// `far` + z − the mean z of all that was drawn, 4 `far` where nothing was; gives how many triangles were drawn.
int64_t visavis_rasterise(const f32 *points, const int32_t *triangles, const int64_t *chosen, int64_t count,
                          const u8 *inner, f32 push, const f32 *uv, const u8 *parts, f32 far, int w, int h,
                          f32 *uv_out, u8 *part_out, f32 *depth_out) {
    double sum = 0;
    int64_t drawn = 0;
    size_t size = (size_t)w * h;
    for (size_t i = 0; i < size; i++) depth_out[i] = INFINITY;
    memset(part_out, 0, size);
    memset(uv_out, 0, size * 2 * sizeof(f32));
    for (int64_t n = 0; n < count; n++) {
        int64_t t = chosen ? chosen[n] : n;
        const int32_t *v = triangles + 3 * t;
        const f32 *a = points + 3 * (size_t)v[0], *b = points + 3 * (size_t)v[1], *c = points + 3 * (size_t)v[2];
        if (!((b[0] - a[0]) * (c[1] - a[1]) < (b[1] - a[1]) * (c[0] - a[0]))) continue;  // turned away
        f32 behind = inner[t] ? push : 0.0f;
        sum += (double)a[2] + b[2] + c[2] + 3.0 * behind;
        drawn++;
        f32 left = fleast(a[0], fleast(b[0], c[0])), right = fmost(a[0], fmost(b[0], c[0]));
        f32 top = fleast(a[1], fleast(b[1], c[1])), low = fmost(a[1], fmost(b[1], c[1]));
        // the pixels whose middles may lie inside
        int x0 = (int)within(ceilf(left - 0.5f), 0, (f32)w), x1 = (int)within(floorf(right - 0.5f) + 1, 0, (f32)w);
        int y0 = (int)within(ceilf(top - 0.5f), 0, (f32)h), y1 = (int)within(floorf(low - 0.5f) + 1, 0, (f32)h);
        if (x0 >= x1 || y0 >= y1) continue;
        f32 bcx = b[0] - c[0], bcy = b[1] - c[1], acx = a[0] - c[0], acy = a[1] - c[1];
        f32 d = acx * bcy - acy * bcx;
        if (!(fabsf(d) >= 1e-6f)) continue;
        f32 over = 1.0f / d;
        const f32 *ua = uv + 2 * (size_t)v[0], *ub = uv + 2 * (size_t)v[1], *uc = uv + 2 * (size_t)v[2];
        u8 part = parts[t];
        for (int y = y0; y < y1; y++) {
            f32 py = (f32)y + 0.5f - c[1];
            for (int x = x0; x < x1; x++) {
                f32 px = (f32)x + 0.5f - c[0];
                f32 fa = (px * bcy - py * bcx) * over, fb = (py * acx - px * acy) * over, fc = 1.0f - fa - fb;
                if (!(fa >= -1e-6f && fb >= -1e-6f && fc >= -1e-6f)) continue;
                f32 z = fa * a[2] + fb * b[2] + fc * c[2] + behind;
                size_t at = (size_t)y * w + x;
                if (!(z < depth_out[at])) continue;
                depth_out[at] = z;
                part_out[at] = part;
                uv_out[2 * at] = fa * ua[0] + fb * ub[0] + fc * uc[0];
                uv_out[2 * at + 1] = fa * ua[1] + fb * ub[1] + fc * uc[1];
            }
        }
    }
    f32 middle = drawn ? (f32)(sum / (3.0 * (double)drawn)) : 0.0f;
    for (size_t i = 0; i < size; i++) depth_out[i] = depth_out[i] < INFINITY ? far + depth_out[i] - middle : 4 * far;
    return drawn;
}
