// What the networks of `visavis` see of a frame, and what they say of it blended into the picture.
// The same as `engines/generators/visavis/inputs.py` and `networked/blend.py` do with NumPy and OpenCV.
#include "grid.h"

enum { WINDOW_PX = 128, WHERE_PX = 32, FLOW_PX = 64, MAPS = 7, LAYERS = 9 };

// The window (left, top, side) of a picture (H, W, 4) as floats (4, 128, 128), 0 … 1, averaged; beyond its edge the
// edge goes on. `room` holds 128 × (side × 4) bytes' worth of floats and the shares.
static void low_picture(const u8 *picture, int W, int H, int left, int top, int side, f32 *line, Shares *columns, f32 *out) {
    for (int x = 0; x < WINDOW_PX; x++) columns[x] = shares_of(x, side, WINDOW_PX);
    size_t plane = (size_t)WINDOW_PX * WINDOW_PX;
    int x0 = most(left, 0), x1 = least(left + side, W);  // what of a line the picture has
    for (int y = 0; y < WINDOW_PX; y++) {
        Shares rows = shares_of(y, side, WINDOW_PX);
        memset(line, 0, sizeof(f32) * 4 * side);
        for (int j = 0; j < rows.count; j++) {
            const u8 *from = picture + 4 * (size_t)W * most(least(top + rows.first + j, H - 1), 0);
            f32 share = rows.share[j];
            for (int i = 4 * (x0 - left); i < 4 * (x1 - left); i++) line[i] += share * (f32)from[i + 4 * left];
        }
        for (int i = 0; i < x0 - left; i++) memcpy(line + 4 * i, line + 4 * (x0 - left), 4 * sizeof(f32));
        for (int i = x1 - left; i < side; i++) memcpy(line + 4 * i, line + 4 * (x1 - left - 1), 4 * sizeof(f32));
        for (int x = 0; x < WINDOW_PX; x++) {
            const f32 *from = line + 4 * (size_t)columns[x].first;
            f32x4 total = {0, 0, 0, 0};
            for (int i = 0; i < columns[x].count; i++) {
                f32x4 v;
                memcpy(&v, from + 4 * i, sizeof v);
                total += columns[x].share[i] * v;
            }
            for (int k = 0; k < 4; k++)
                out[k * plane + (size_t)y * WINDOW_PX + x] = floorf(total[k] + 0.5f) * (1.0f / 255);
        }
    }
}

// the pixel of a grid (count over picture_px) that lies under each of `size` places of the window
static void nearest(int begin_px, int side_px, int size, int count, int picture_px, int32_t *out) {
    for (int i = 0; i < size; i++) {
        double at = (i + 0.5) * ((double)side_px / size) + begin_px;
        out[i] = (int32_t)fmin(fmax(trunc(at * ((double)count / picture_px)), 0), count - 1);
    }
}

typedef struct {
    const u8 *picture; int32_t W, H;                      // premultiplied RGBA
    int32_t left_px, top_px, side_px;                     // the window in it
    const f32 *uv; const u8 *part; const f32 *flow;       // G-buffer and computed flow (h, w, 2), (h, w), (h, w, 2)
    int32_t w, h;
    const f32 *first, *second; int32_t map_px;            // colour and one of PNCC (s, s, 4); the rest (s, s, 3), 0 … 1
    const u8 *skin, *eye, *mouth;                         // (256,) which parts are
    f32 *low, *guide, *where;                             // out: (4, 128, 128), (10, 128, 128), (32, 32, 2)
    u8 *room; int64_t room_bytes;
} Seen;

// Gives 0, or −1 when the room does not suffice.
int visavis_window(const Seen *s) {
    size_t wanted = 16 * (size_t)s->side_px + sizeof(Shares) * WINDOW_PX + 64;
    if ((int64_t)wanted > s->room_bytes) return -1;
    f32 *line = (f32 *)s->room;
    Shares *columns = (Shares *)(s->room + (16 * (size_t)s->side_px + 63) / 64 * 64);
    low_picture(s->picture, s->W, s->H, s->left_px, s->top_px, s->side_px, line, columns, s->low);
    int32_t column[WINDOW_PX], row[WINDOW_PX];
    nearest(s->left_px, s->side_px, WINDOW_PX, s->w, s->W, column);
    nearest(s->top_px, s->side_px, WINDOW_PX, s->h, s->H, row);
    size_t plane = (size_t)WINDOW_PX * WINDOW_PX;
    f32 side = (f32)s->map_px;
    memset(s->guide, 0, sizeof(f32) * MAPS * plane);
    for (int y = 0; y < WINDOW_PX; y++)
        for (int x = 0; x < WINDOW_PX; x++) {
            size_t g = (size_t)row[y] * s->w + column[x];
            f32 *to = s->guide + (size_t)y * WINDOW_PX + x, found[MAPS];
            u8 part = s->part[g];
            to[7 * plane] = s->skin[part]; to[8 * plane] = s->eye[part]; to[9 * plane] = s->mouth[part];
            if (!part) continue;
            f32 at_x = s->uv[2 * g] * side - 0.5f, at_y = s->uv[2 * g + 1] * side - 0.5f;
            look_up(s->first, s->map_px, s->map_px, 4, at_x, at_y, found);
            look_up(s->second, s->map_px, s->map_px, 3, at_x, at_y, found + 4);
            for (int k = 0; k < MAPS; k++) to[k * plane] = (f32)(int)(found[k] * 255.0f) * (1.0f / 255);
        }
    nearest(s->left_px, s->side_px, WHERE_PX, s->w, s->W, column);
    nearest(s->top_px, s->side_px, WHERE_PX, s->h, s->H, row);
    f32 shares = 2.0f / (f32)s->side_px;
    for (int y = 0; y < WHERE_PX; y++)
        for (int x = 0; x < WHERE_PX; x++) {
            const f32 *from = s->flow + 2 * ((size_t)row[y] * s->w + column[x]);
            f32 *to = s->where + 2 * (y * WHERE_PX + x);
            to[0] = within(from[0] * shares + ((f32)x + 0.5f) / WHERE_PX * 2 - 1, -1.5f, 1.5f);
            to[1] = within(from[1] * shares + ((f32)y + 0.5f) / WHERE_PX * 2 - 1, -1.5f, 1.5f);
        }
    return 0;
}

typedef struct {
    const u8 *picture; u8 *out; int32_t W, H;             // premultiplied RGBA; `out` another
    int32_t left_px, top_px, side_px;                     // the window in it
    const f32 *flow, *layers;                             // (2, 64, 64) in shares of the side, (9, 128, 128); null: none
    u8 *room; int64_t room_bytes;
} Blend;

static const f32 LEAST_PX = 0.05f;  // a flow smaller than this is none

// `P(x + D(x)) (1 − M) + added − taken` in the window. Gives 0, or −1 when the room does not suffice.
int visavis_blend(const Blend *b) {
    int W = b->W, H = b->H, side = b->side_px;
    memcpy(b->out, b->picture, 4 * (size_t)W * H);
    int x0 = most(b->left_px, 0), y0 = most(b->top_px, 0), x1 = least(b->left_px + side, W), y1 = least(b->top_px + side, H);
    if (x1 <= x0 || y1 <= y0) return 0;
    enum { CELL = 12 };  // added 4, taken 4, M, 3 of nothing
    size_t cells = (size_t)WINDOW_PX * WINDOW_PX;
    size_t wanted = sizeof(f32) * (CELL * cells + CELL * WINDOW_PX + 2 * (size_t)FLOW_PX + 8 * (size_t)W) + 64 * 16;
    if ((int64_t)wanted > b->room_bytes) return -1;
    f32 *layers = (f32 *)b->room, *line = layers + CELL * cells, *flow = line + CELL * WINDOW_PX;
    f32 *at_x = flow + 2 * FLOW_PX, *at_y = at_x + W;
    int32_t *numbers = (int32_t *)(at_y + W);
    Pairs small = {numbers, numbers + W, (f32 *)(numbers + 2 * W)}, large = {numbers + 3 * W, numbers + 4 * W, (f32 *)(numbers + 5 * W)};
    u8 busy[WINDOW_PX] = {0}, any[WINDOW_PX * WINDOW_PX];  // rows and places in which a layer says something
    if (b->layers) {
        for (size_t i = 0; i < cells; i++) {
            f32 *to = layers + CELL * i;
            const f32 *from = b->layers + i;
            for (int k = 0; k < 4; k++) to[k] = from[k * cells];
            for (int k = 0; k < 4; k++) to[4 + k] = from[(5 + k) * cells];
            to[8] = from[4 * cells];
            to[9] = to[10] = to[11] = 0;
        }
        for (size_t i = 0; i < CELL * cells; i++) layers[i] = floorf(within(layers[i] * 255.0f, 0.0f, 255.0f) + 0.5f);
        for (size_t i = 0; i < cells; i++) {
            f32x4 sum = loaded(layers + CELL * i) + loaded(layers + CELL * i + 4) + loaded(layers + CELL * i + 8);
            any[i] = sum[0] + sum[1] + sum[2] + sum[3] > 0;
            busy[i / WINDOW_PX] |= any[i];
        }
    }
    // only the box in which anything moves, and a cell around it
    int fx0 = FLOW_PX, fy0 = FLOW_PX, fx1 = 0, fy1 = 0;
    f32 strongest = 0;
    if (b->flow)
        for (int y = 0; y < FLOW_PX; y++)
            for (int x = 0; x < FLOW_PX; x++) {
                size_t i = (size_t)y * FLOW_PX + x;
                f32 size = fmost(fabsf(b->flow[i]), fabsf(b->flow[(size_t)FLOW_PX * FLOW_PX + i]));
                strongest = fmost(strongest, size);
                if (!(size > 0)) continue;
                fx0 = least(fx0, x); fx1 = most(fx1, x + 1); fy0 = least(fy0, y); fy1 = most(fy1, y + 1);
            }
    int moves = strongest * (f32)side >= LEAST_PX;
    double step = (double)side / FLOW_PX;
    int mx0 = most(b->left_px + (int)(most(fx0 - 1, 0) * step), 0), mx1 = least(b->left_px + (int)ceil(least(fx1 + 1, FLOW_PX) * step), W);
    int my0 = most(b->top_px + (int)(most(fy0 - 1, 0) * step), 0), my1 = least(b->top_px + (int)ceil(least(fy1 + 1, FLOW_PX) * step), H);
    moves = moves && mx1 > mx0 && my1 > my0 && W > 1 && H > 1;
    if (moves) pairs_of(mx0 - b->left_px, mx1 - mx0, FLOW_PX, side, small);
    pairs_of(x0 - b->left_px, x1 - x0, WINDOW_PX, side, large);
    for (int y = y0; y < y1; y++) {
        u8 *to = b->out + 4 * (size_t)y * W;
        if (moves && y >= my0 && y < my1) {
            Pair v = pair_of(y - b->top_px, FLOW_PX, side);
            for (int axis = 0; axis < 2; axis++) {
                const f32 *from = b->flow + (size_t)axis * FLOW_PX * FLOW_PX;
                for (int x = 0; x < FLOW_PX; x++)
                    flow[axis * FLOW_PX + x] = (from[v.a * FLOW_PX + x] + v.t * (from[v.b * FLOW_PX + x] - from[v.a * FLOW_PX + x])) * (f32)side;
            }
            const f32 *down = flow + FLOW_PX;
            int from_x = FLOW_PX, to_x = 0;  // of this row
            for (int x = 0; x < FLOW_PX; x++)
                if (flow[x] != 0 || down[x] != 0) { from_x = least(from_x, x); to_x = x + 1; }
            int i0 = most(b->left_px + (int)(most(from_x - 1, 0) * step) - mx0, 0);
            int i1 = least(b->left_px + (int)ceil(least(to_x + 1, FLOW_PX) * step) - mx0, mx1 - mx0);
            for (int i = i0; i < i1; i++) {
                int p = small.a[i], q = small.b[i];
                at_x[i] = (f32)(mx0 + i) + flow[p] + small.t[i] * (flow[q] - flow[p]);
                at_y[i] = (f32)y + down[p] + small.t[i] * (down[q] - down[p]);
            }
            if (i1 > i0) sample(b->picture, W, H, at_x + i0, at_y + i0, i1 - i0, to + 4 * (mx0 + i0));
        }
        Pair v = pair_of(y - b->top_px, WINDOW_PX, side);
        if (!b->layers || !(busy[v.a] | busy[v.b])) continue;
        const f32 *up = layers + (size_t)v.a * WINDOW_PX * CELL, *down = layers + (size_t)v.b * WINDOW_PX * CELL;
        for (int i = 0; i < WINDOW_PX * CELL; i++) line[i] = up[i] + v.t * (down[i] - up[i]);
        u8 active[WINDOW_PX];
        for (int x = 0; x < WINDOW_PX; x++) active[x] = any[v.a * WINDOW_PX + x] | any[v.b * WINDOW_PX + x];
        for (int i = 0; i < x1 - x0;) {
            int p = large.a[i], q = large.b[i], end = i + 1;
            while (end < x1 - x0 && large.a[end] == p) end++;  // the pixels between two places
            if (active[p] | active[q]) {
                const f32 *left = line + CELL * p, *right = line + CELL * q;
                f32x4 more = loaded(left), less = loaded(left + 4), more_on = loaded(right) - more, less_on = loaded(right + 4) - less;
                f32 mask = 255.5f - left[8], mask_on = left[8] - right[8];
                for (int k = i; k < end; k++) {
                    f32 t = large.t[k], stays = (f32)(int)(mask + t * mask_on) * (1.0f / 255);
                    u8 *at = to + 4 * (x0 + k);
                    f32x4 under = rounded(four(at) * stays) + rounded(more + t * more_on);
                    put_four(at, bounded(bounded(under) - rounded(less + t * less_on)));
                }
            }
            i = end;
        }
    }
    return 0;
}

typedef struct {
    double affine[6];    // crop pixels → picture pixels, both counted from the middles of pixels
    int32_t size;        // of the crop, square
    int32_t finer;       // this many samples a pixel and direction, averaged; `affine` is of the finer crop
} Crop;

// A turned crop of a picture (H, W, 4): RGB (3, size, size), 0 … 1; beyond the edge the edge goes on.
void visavis_crop(const u8 *picture, int W, int H, const Crop *crop, f32 *out) {
    const double *m = crop->affine;
    int n = crop->size, finer = crop->finer;
    size_t plane = (size_t)n * n;
    f32 over = 1.0f / (f32)(finer * finer);
    for (int y = 0; y < n; y++)
        for (int x = 0; x < n; x++) {
            f32x4 total = {0, 0, 0, 0};
            for (int j = 0; j < finer; j++)
                for (int i = 0; i < finer; i++) {
                    double u = x * finer + i, v = y * finer + j;
                    Pair h = pair_at((f32)(m[0] * u + m[1] * v + m[2]), W), w = pair_at((f32)(m[3] * u + m[4] * v + m[5]), H);
                    const u8 *up = picture + 4 * (size_t)w.a * W, *down = picture + 4 * (size_t)w.b * W;
                    f32x4 a = blended(four(up + 4 * h.a), four(up + 4 * h.b), h.t);
                    f32x4 b = blended(four(down + 4 * h.a), four(down + 4 * h.b), h.t);
                    total += rounded(blended(a, b, w.t));
                }
            total = rounded(total * over);
            for (int k = 0; k < 3; k++) out[k * plane + (size_t)y * n + x] = total[k] * (1.0f / 255);
        }
}

// Which of `count` kinds of part (256, count) each pixel of a crop shows, nearest: (count, size, size) 0 or 1.
void visavis_crop_parts(const u8 *part, int w, int h, const Crop *crop, const u8 *kinds, int count, f32 *out) {
    const double *m = crop->affine;
    int n = crop->size;
    for (int y = 0; y < n; y++)
        for (int x = 0; x < n; x++) {
            double u = rint(m[0] * x + m[1] * y + m[2]), v = rint(m[3] * x + m[4] * y + m[5]);
            int inside = u >= 0 && v >= 0 && u < w && v < h;  // beyond is nothing
            const u8 *kind = kinds + (size_t)count * (inside ? part[(size_t)(int)v * w + (int)u] : 0);
            for (int k = 0; k < count; k++) out[((size_t)k * n + y) * n + x] = kind[k];
        }
}

enum { MOST_CROP_PX = 128 };

// `P (1 − M) + (added − taken) α` where a crop's layers (7, size, size) lie, within the person, in place.
void visavis_blend_crop(u8 *picture, int W, int H, const Crop *crop, const f32 *layers) {
    const double *m = crop->affine;
    int n = crop->size;
    double det = m[0] * m[4] - m[1] * m[3];
    if (!(fabs(det) > 1e-12) || n > MOST_CROP_PX) return;
    double low_x = INFINITY, low_y = INFINITY, high_x = -INFINITY, high_y = -INFINITY;
    for (int k = 0; k < 4; k++) {
        double u = k & 1 ? n - 0.5 : -0.5, v = k & 2 ? n - 0.5 : -0.5;
        double x = m[0] * u + m[1] * v + m[2], y = m[3] * u + m[4] * v + m[5];
        low_x = fmin(low_x, x); high_x = fmax(high_x, x); low_y = fmin(low_y, y); high_y = fmax(high_y, y);
    }
    if (!(high_x > -1e9 && low_x < 1e9 && high_y > -1e9 && low_y < 1e9)) return;
    int x0 = (int)fmax(floor(low_x), 0), y0 = (int)fmax(floor(low_y), 0);
    int x1 = (int)fmin(ceil(high_x) + 1, W), y1 = (int)fmin(ceil(high_y) + 1, H);
    if (x1 - x0 < 2 || y1 - y0 < 2) return;
    // two pixels of the crop at a time: added and M, taken; around it nothing is added and all stays
    enum { CELL = 8 };
    static _Thread_local f32 cells[(MOST_CROP_PX + 2) * (MOST_CROP_PX + 2) * CELL];
    int line = CELL * (n + 2);
    memset(cells, 0, sizeof(f32) * (size_t)line * (n + 2));
    for (int k = 0; k < 7; k++)
        for (int y = 0; y < n; y++) {
            const f32 *from = layers + ((size_t)k * n + y) * n;
            f32 *to = cells + (size_t)(y + 1) * line + CELL + k;
            for (int x = 0; x < n; x++) to[CELL * x] = (f32)to_byte(from[x] * 255.0f);
        }
    f32 step_u = (f32)(m[4] / det), step_v = (f32)(-m[3] / det), last = (f32)n;
    for (int y = y0; y < y1; y++) {
        double dx = x0 - m[2], dy = y - m[5];
        f32 u0 = (f32)((m[4] * dx - m[1] * dy) / det), v0 = (f32)((m[0] * dy - m[3] * dx) / det);
        for (int x = x0; x < x1; x++) {
            f32 u = u0 + step_u * (f32)(x - x0) + 1, v = v0 + step_v * (f32)(x - x0) + 1;
            if (!(u > 0 && v > 0 && u < last + 1 && v < last + 1)) continue;
            int a = (int)u, b = (int)v;
            const f32 *up = cells + (size_t)b * line + CELL * a, *down = up + line;
            f32 s = u - (f32)a, t = v - (f32)b;
            f32x4 more = rounded(blended(blended(loaded(up), loaded(up + CELL), s), blended(loaded(down), loaded(down + CELL), s), t));
            f32x4 less = rounded(blended(blended(loaded(up + 4), loaded(up + CELL + 4), s),
                                         blended(loaded(down + 4), loaded(down + CELL + 4), s), t));
            u8 *to = picture + 4 * ((size_t)y * W + x), alpha = to[3];
            f32 person = (f32)alpha * (1.0f / 255), stays = (255.0f - more[3]) * (1.0f / 255);
            f32x4 painted = rounded(more * person), taken = rounded(less * person), under = rounded(four(to) * stays);
            put_four(to, bounded(bounded(under + painted) - taken));
            to[3] = alpha;
        }
    }
}
