// The two layers of `geometric`: the photo moved by the computed flow, head over body, and what the photo hides.
// The same as `engines/generators/geometric/generator.py` draws with OpenCV, in one call.
#include "grid.h"

typedef struct {
    int32_t w, h;                  // of the grid
    int32_t W, H;                  // of the picture
    int32_t canvas_w, canvas_h;    // of the canvas, photo and body together
    int32_t margin_px, below_px;   // around the picture; where the body begins
    int32_t map_px;                // side of the UV maps
    int32_t follow_w, follow_h, head_w, head_h;
    f32 turned;                    // 0 … 1: how much of what the photo hides is drawn
    double linear[4], shift[2];    // motion of the head's middle plane in the picture
} Shape;

typedef struct {
    const f32 *uv; const u8 *part; const f32 *depth;          // (h, w, 2), (h, w), (h, w)
    const f32 *source, *colour;                                // (s, s, 4), (s, s, 3)
    const u8 *canvas;                                          // (canvas_h, canvas_w, 4)
    const f32 *follow, *head;                                  // (follow_h, follow_w), (head_h, head_w)
    const u8 *outside, *painted;                               // (256,): no mouth; the texture shows
    u8 *picture; f32 *both, *seen;                             // (H, W, 4), (h, w, 2), (h, w)
    u8 *room; int64_t room_bytes;
} Buffers;

static const f32 CONTOUR_DEPTH = 0.05f, CONTOUR_BEHIND = 0.5f, CONTOUR_PX = 1.5f, STEP_PX = 2.0f, SEEN = 0.5f, LEAST_WEIGHT = 0.02f;
static const f32 HEAD_FROM = 127.3f, BESIDE_CLEAR = 0.25f, RIM_STILL = 0.001f, RIM_MOVES = 0.002f, MOVED_FROM = 0.004f, MOVED_FULL = 0.012f;
enum { RIM_PX = 5, BESIDE_PX = 9, REACH = 6 };

typedef struct { u8 *at, *end; } Room;

static void *take(Room *room, size_t bytes) {
    u8 *here = room->at;
    room->at += (bytes + 63) / 64 * 64;
    return room->at <= room->end ? here : NULL;
}
#define FLOATS(room, n) ((f32 *)take(room, sizeof(f32) * (size_t)(n)))
#define BYTES(room, n) ((u8 *)take(room, (size_t)(n)))

// where each place of the picture comes from in the body, minus where it is; `w(s) (M s − s)` turned round
static void body_flow(const Shape *s, const f32 *follow, f32 *out) {
    double step_x = (double)s->W / s->follow_w, step_y = (double)s->H / s->follow_h;
    for (int y = 0; y < s->follow_h; y++)
        for (int x = 0; x < s->follow_w; x++) {
            double tx = (x + 0.5) * step_x, ty = (y + 0.5) * step_y, sx = tx, sy = ty;
            for (int n = 0; n < 3; n++) {
                f32 weight;
                look_up(follow, s->follow_w, s->follow_h, 1, (f32)(sx / step_x - 0.5), (f32)(sy / step_y - 0.5), &weight);
                double mx = s->linear[0] * sx + s->linear[1] * sy + s->shift[0] - sx;
                double my = s->linear[2] * sx + s->linear[3] * sy + s->shift[1] - sy;
                sx = tx - weight * mx;
                sy = ty - weight * my;
            }
            f32 *to = out + 2 * ((size_t)y * s->follow_w + x);
            to[0] = (f32)(sx - tx);
            to[1] = (f32)(sy - ty);
        }
}

// along the head's contour the body goes with it, fading outwards
static int rim_flow(const Shape *s, const Buffers *b, const f32 *flow, f32 *behind, Room room) {
    int w = s->w, h = s->h, hw = most(1, w / 2), hh = most(1, h / 2);
    size_t n = (size_t)w * h, half = (size_t)hw * hh;
    f32 *known = FLOATS(&room, 3 * n), *small = FLOATS(&room, 3 * half), *rows = FLOATS(&room, 3 * half);
    f32 *total = FLOATS(&room, 3 * half), *there = FLOATS(&room, half), *low = FLOATS(&room, 2 * half);
    f32 *extra = FLOATS(&room, 2 * half), *full = FLOATS(&room, 2 * n), *line = FLOATS(&room, most(3 * w, s->head_w)), kernel[13];
    Shares *columns = (Shares *)take(&room, sizeof(Shares) * (size_t)hw);
    if (!columns) return -1;
    for (size_t i = 0; i < n; i++) {
        known[3 * i] = flow[2 * i] * b->seen[i];
        known[3 * i + 1] = flow[2 * i + 1] * b->seen[i];
        known[3 * i + 2] = b->seen[i];
    }
    shrink(known, w, h, 3, columns, line, small, hw, hh);
    convolve(small, hw, hh, 3, kernel, gaussian(1.5f, 6, kernel), rows, total);
    if (s->head_w >= hw && s->head_h >= hh) shrink(b->head, s->head_w, s->head_h, 1, columns, line, there, hw, hh);
    else enlarge(b->head, s->head_w, s->head_h, 1, there, hw, hh);
    shrink(behind, w, h, 2, columns, line, low, hw, hh);
    f32 shares = (f32)hw / (f32)s->W;
    for (int y = 0; y < hh; y++)
        for (int x = 0; x < hw; x++) {
            size_t i = (size_t)y * hw + x;
            f32 near = total[3 * i + 2], over = 1.0f / fmost(near, 1e-4f), inside;
            f32 ox = total[3 * i] * over, oy = total[3 * i + 1] * over;
            look_up(there, hw, hh, 1, (f32)x + ox * shares, (f32)y + oy * shares, &inside);
            f32 weight = fleast(near * 4, 1.0f) * (1 - inside);
            f32 dx = ox - low[2 * i], dy = oy - low[2 * i + 1], far = sqrtf(dx * dx + dy * dy) / (f32)s->W;
            weight *= within((far - RIM_STILL) / (RIM_MOVES - RIM_STILL), 0.0f, 1.0f);
            extra[2 * i] = weight * dx;
            extra[2 * i + 1] = weight * dy;
        }
    enlarge(extra, hw, hh, 2, full, w, h);
    for (size_t i = 0; i < 2 * n; i++) behind[i] += full[i];
    return 0;
}

// nearest and furthest skin around each place
static void range_of(const f32 *depth, const u8 *skin, int w, int h, int before, int after, f32 far, f32 *masked,
                     f32 *rows, f32 *nearest, f32 *furthest) {
    size_t n = (size_t)w * h;
    for (size_t i = 0; i < n; i++) masked[i] = skin[i] ? depth[i] : far;
    spread(masked, w, h, 1, before, after, 0, rows, nearest);
    for (size_t i = 0; i < n; i++) masked[i] = skin[i] ? depth[i] : 0.0f;
    spread(masked, w, h, 1, before, after, 1, rows, furthest);
}

// the most that flow (h, w, 2) changes over two pixels, in either direction
static void steepness(const f32 *flow, int w, int h, f32 *rows, f32 *high, f32 *low, f32 *out) {
    spread(flow, w, h, 2, 1, 0, 1, rows, high);
    spread(flow, w, h, 2, 1, 0, 0, rows, low);
    for (size_t i = 0; i < (size_t)w * h; i++)
        out[i] = fmost(high[2 * i] - low[2 * i], high[2 * i + 1] - low[2 * i + 1]);
}

static f32 largest(const f32 *values, size_t n) {
    f32 out = n ? values[0] : 0.0f;
    for (size_t i = 1; i < n; i++) out = fmost(out, values[i]);
    return out;
}

typedef struct { int x0, y0, x1, y1; } Box;

static Box box_of(const u8 *mask, int w, int h) {
    Box b = {w, h, 0, 0};
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            if (mask[(size_t)y * w + x]) {
                b.x0 = least(b.x0, x); b.x1 = most(b.x1, x + 1);
                b.y0 = least(b.y0, y); b.y1 = most(b.y1, y + 1);
            }
    return b;
}

// a contour within the head and the flow of either side of it, in a box of the grid
typedef struct { Box box; u8 *beside; f32 *values, *side; } Parting;

static int contours(const Shape *s, const Buffers *b, const f32 *at_depth, const f32 *flow, const u8 *skin, Parting *out,
                    Room *kept) {
    int w = s->w, h = s->h;
    size_t n = (size_t)w * h;
    out->beside = NULL;
    u8 *steps = BYTES(kept, n);
    Room room = *kept;
    f32 *masked = FLOATS(&room, 2 * n), *rows = FLOATS(&room, 2 * n), *nearest = FLOATS(&room, 2 * n);
    f32 *furthest = FLOATS(&room, 2 * n), *steep = FLOATS(&room, n);
    if (!steep) return -1;
    range_of(at_depth, skin, w, h, 1, 0, largest(at_depth, n), masked, rows, nearest, furthest);
    int any = 0;
    for (size_t i = 0; i < n; i++) any |= steps[i] = furthest[i] - nearest[i] > CONTOUR_DEPTH * (f32)h;
    if (!any) return 0;
    steepness(flow, w, h, rows, nearest, furthest, steep);
    any = 0;
    for (size_t i = 0; i < n; i++) any |= steps[i] &= steep[i] > STEP_PX;
    if (!any) return 0;
    Box t = box_of(steps, w, h);
    Box k = {most(t.x0 - REACH, 0), most(t.y0 - REACH, 0), least(t.x1 + REACH, w), least(t.y1 + REACH, h)};
    int bw = k.x1 - k.x0, bh = k.y1 - k.y0;
    size_t m = (size_t)bw * bh;
    u8 *beside = BYTES(kept, n);
    f32 *values = FLOATS(kept, 4 * m), *side = FLOATS(kept, m);
    room = *kept;
    f32 *own = FLOATS(&room, 2 * m), *depth = FLOATS(&room, m), *close = FLOATS(&room, m), *deep = FLOATS(&room, m);
    f32 *spare = FLOATS(&room, 2 * m), *line = FLOATS(&room, 2 * m), *near = FLOATS(&room, 2 * m), *far = FLOATS(&room, 2 * m);
    u8 *on = BYTES(&room, m), *step = BYTES(&room, m), *before = BYTES(&room, m), *after = BYTES(&room, m);
    u8 *unknown = BYTES(&room, m), *wider = BYTES(&room, m), *free_ = BYTES(&room, m), *parted = BYTES(&room, m);
    if (!parted) return -1;
    for (int y = 0; y < bh; y++)
        for (int x = 0; x < bw; x++) {
            size_t i = (size_t)y * bw + x, g = (size_t)(y + k.y0) * w + x + k.x0;
            own[2 * i] = flow[2 * g]; own[2 * i + 1] = flow[2 * g + 1];
            depth[i] = at_depth[g]; on[i] = skin[g]; step[i] = steps[g];
        }
    range_of(depth, on, bw, bh, 2, 2, largest(depth, m), spare, line, close, deep);
    spread_bytes(step, bw, bh, 1, 2, 2, 1, free_, wider);
    for (size_t i = 0; i < m; i++) {
        u8 band = wider[i] & on[i];
        before[i] = (depth[i] < 0.5f * close[i] + 0.5f * deep[i]) & band;
        after[i] = before[i] ^ band;
    }
    for (int y = 0; y < bh; y++)
        for (int x = 0; x < bw; x++) {
            size_t i = (size_t)y * bw + x;
            parted[i] = after[i] & (b->seen[(size_t)(y + k.y0) * w + x + k.x0] < SEEN);
        }
    spread_bytes(parted, bw, bh, 1, 2, 2, 1, free_, unknown);
    any = 0;
    for (size_t i = 0; i < m; i++) any |= parted[i] = step[i] & (unknown[i] ^ 1);
    if (!any) return 0;
    for (int which = 0; which < 2; which++) {
        f32 *alone = which ? far : near;
        const u8 *without = which ? before : after;
        for (size_t i = 0; i < m; i++) {
            step[i] = on[i] ^ without[i];
            alone[2 * i] = step[i] ? own[2 * i] : 0; alone[2 * i + 1] = step[i] ? own[2 * i + 1] : 0;
        }
        grow(alone, step, bw, bh, 2, wider, free_);
    }
    for (size_t i = 0; i < m; i++) {
        values[4 * i] = near[2 * i]; values[4 * i + 1] = near[2 * i + 1];
        values[4 * i + 2] = far[2 * i]; values[4 * i + 3] = far[2 * i + 1];
        spare[i] = (f32)before[i] - (f32)after[i];
    }
    f32 kernel[5];
    convolve(spare, bw, bh, 1, kernel, gaussian(1.0f, 2, kernel), line, side);
    spread_bytes(parted, bw, bh, 1, 1, 1, 1, free_, wider);
    memset(beside, 0, n);
    for (int y = 0; y < bh; y++) memcpy(beside + (size_t)(y + k.y0) * w + k.x0, wider + (size_t)y * bw, bw);
    *out = (Parting){k, beside, values, side};
    return 0;
}

// each pixel of the picture from the canvas, where head or body says
static int warp(const Shape *s, const Buffers *b, const f32 *flow, const f32 *behind, const u8 *covered,
                const Parting *parting, Room room) {
    int w = s->w, h = s->h, W = s->W, H = s->H;
    size_t n = (size_t)w * h;
    f32 *soft = FLOATS(&room, n), *rows = FLOATS(&room, n), *line = FLOATS(&room, 5 * (size_t)w), kernel[3];
    f32 *at_x = FLOATS(&room, W), *at_y = FLOATS(&room, W), *share = FLOATS(&room, W);
    int32_t *first = (int32_t *)take(&room, 4 * (size_t)W), *second = (int32_t *)take(&room, 4 * (size_t)W);
    u8 *on_head = BYTES(&room, W);
    f32 *own_x = FLOATS(&room, W);
    int32_t *begin = (int32_t *)take(&room, 4 * (size_t)(w + 1));
    for (size_t i = 0; i < n; i++) rows[i] = covered[i] ? 255.0f : 0.0f;
    f32 *spare = FLOATS(&room, n);
    if (!spare) return -1;
    convolve(rows, w, h, 1, kernel, gaussian(0.7f, 1, kernel), spare, soft);
    for (size_t i = 0; i < n; i++) soft[i] = floorf(soft[i] + 0.5f);
    pairs_of(0, W, w, W, (Pairs){first, second, share});
    for (int x = 0; x < W; x++) own_x[x] = (f32)(x + s->margin_px);
    begin[0] = 0;
    for (int i = 0, x = 0; i < w; i++) {
        while (x < W && first[x] <= i) x++;
        begin[i + 1] = x;
    }
    const Box *k = &parting->box;
    int bw = k->x1 - k->x0, bh = k->y1 - k->y0;
    for (int y = 0; y < H; y++) {
        Pair v = pair_of(y, h, H);
        size_t top = (size_t)v.a * w, low = (size_t)v.b * w;
        // the row's own values on the grid, each kind apart
        f32 *mask = line, *hx = line + w, *hy = line + 2 * (size_t)w, *bx = line + 3 * (size_t)w, *by = line + 4 * (size_t)w;
        for (int x = 0; x < w; x++) {
            mask[x] = soft[top + x] + v.t * (soft[low + x] - soft[top + x]);
            hx[x] = flow[2 * (top + x)] + v.t * (flow[2 * (low + x)] - flow[2 * (top + x)]);
            hy[x] = flow[2 * (top + x) + 1] + v.t * (flow[2 * (low + x) + 1] - flow[2 * (top + x) + 1]);
            bx[x] = behind[2 * (top + x)] + v.t * (behind[2 * (low + x)] - behind[2 * (top + x)]);
            by[x] = behind[2 * (top + x) + 1] + v.t * (behind[2 * (low + x) + 1] - behind[2 * (top + x) + 1]);
        }
        f32 origin_y = (f32)(y + s->margin_px);
        for (int i = 0; i < w; i++) {  // the pixels between two of the grid
            int j = least(i + 1, w - 1), head = mask[i] > HEAD_FROM, x = begin[i], end = begin[i + 1];
            if (head == (mask[j] > HEAD_FROM)) {
                const f32 *fx = head ? hx : bx, *fy = head ? hy : by;
                f32 x0 = fx[i], dx = fx[j] - x0, y0 = fy[i] + origin_y, dy = fy[j] - fy[i];
                for (; x < end; x++) {
                    on_head[x] = (u8)head;
                    at_x[x] = x0 + share[x] * dx + own_x[x];
                    at_y[x] = y0 + share[x] * dy;
                }
            } else
                for (; x < end; x++) {
                    f32 t = share[x];
                    on_head[x] = mask[i] + t * (mask[j] - mask[i]) > HEAD_FROM;
                    const f32 *fx = on_head[x] ? hx : bx, *fy = on_head[x] ? hy : by;
                    at_x[x] = fx[i] + t * (fx[j] - fx[i]) + own_x[x];
                    at_y[x] = fy[i] + t * (fy[j] - fy[i]) + origin_y;
                }
        }
        if (parting->beside) {
            const u8 *beside = parting->beside + (size_t)least((int)((double)y * h / H), h - 1) * w;
            f32 box_y = ((f32)y + 0.5f) * ((f32)h / (f32)H) - 0.5f - (f32)k->y0;
            for (int x = 0; x < W; x++) {
                if (!on_head[x] || !beside[least((int)((double)x * w / W), w - 1)]) continue;
                f32 found[4], side, box_x = ((f32)x + 0.5f) * ((f32)w / (f32)W) - 0.5f - (f32)k->x0;
                look_up(parting->values, bw, bh, 4, box_x, box_y, found);
                look_up(parting->side, bw, bh, 1, box_x, box_y, &side);
                at_x[x] = (side >= 0 ? found[0] : found[2]) + (f32)(x + s->margin_px);
                at_y[x] = (side >= 0 ? found[1] : found[3]) + origin_y;
            }
        }
        sample(b->canvas, s->canvas_w, s->canvas_h, at_x, at_y, W, b->picture + 4 * (size_t)y * W);
    }
    return 0;
}

static inline void colour_at(const Shape *s, const Buffers *b, size_t g, f32 *out) {
    f32 side = (f32)s->map_px;
    look_up(b->colour, s->map_px, s->map_px, 3, b->uv[2 * g] * side - 0.5f, b->uv[2 * g + 1] * side - 0.5f, out);
    for (int c = 0; c < 3; c++) out[c] *= 255.0f;
}

// where the photo does not show what the pose does, the filled colour of the UV map
static int draw_hidden(const Shape *s, const Buffers *b, const f32 *flow, const u8 *covered, Room room) {
    int w = s->w, h = s->h, W = s->W, H = s->H;
    size_t n = (size_t)w * h;
    u8 *inner = BYTES(&room, n), *spare = BYTES(&room, n);
    f32 *hidden = FLOATS(&room, n), *rows = FLOATS(&room, n), *soft = FLOATS(&room, n), kernel[7];
    f32 *alpha = FLOATS(&room, n), *own = FLOATS(&room, n), *beside = FLOATS(&room, n);
    Shares *columns = (Shares *)take(&room, sizeof(Shares) * (size_t)w);
    if (!columns) return -1;
    spread_bytes(covered, w, h, 1, 2, 2, 0, spare, inner);
    for (size_t i = 0; i < n; i++) hidden[i] = inner[i];
    for (int i = 0; i < RIM_PX; i++) kernel[i] = 1.0f / RIM_PX;
    convolve(hidden, w, h, 1, kernel, RIM_PX / 2, rows, soft);
    for (size_t i = 0; i < n; i++) own[i] = ((f32)covered[i] - b->seen[i]) * (f32)b->painted[b->part[i]];
    spread(own, w, h, 1, BESIDE_PX / 2, BESIDE_PX / 2, 1, rows, beside);
    for (int x = 0; x < w; x++) columns[x] = shares_of(x, W, w);
    for (int y = 0; y < h; y++) {  // the picture's alpha, averaged over each pixel of the grid where it matters
        Shares down = shares_of(y, H, h);
        for (int x = 0; x < w; x++) {
            size_t i = (size_t)y * w + x;
            alpha[i] = 255.0f;
            if (!(soft[i] > 0 || beside[i] > 0) || !covered[i]) continue;
            const Shares *across = columns + x;
            u8 whole = 255;  // nearly always: then no average is needed
            for (int j = 0; j < down.count; j++) {
                const u8 *from = b->picture + 4 * ((size_t)(down.first + j) * W + across->first) + 3;
                for (int k = 0; k < across->count; k++) whole &= from[4 * k];
            }
            if (whole == 255) continue;
            f32 total = 0;
            for (int j = 0; j < down.count; j++) {
                const u8 *from = b->picture + 4 * ((size_t)(down.first + j) * W + across->first) + 3;
                f32 line = 0;
                for (int k = 0; k < across->count; k++) line += across->share[k] * (f32)from[4 * k];
                total += down.share[j] * line;
            }
            alpha[i] = floorf(total + 0.5f);
        }
    }
    f32 slope = 1 / ((MOVED_FULL - MOVED_FROM) * (f32)H), begin = MOVED_FROM / (MOVED_FULL - MOVED_FROM);
    for (size_t i = 0; i < n; i++) {
        f32 far = sqrtf(flow[2 * i] * flow[2 * i] + flow[2 * i + 1] * flow[2 * i + 1]) * slope - begin;
        f32 moved = within(far, s->turned, 1.0f);
        f32 clear = 1 - alpha[i] * (1.0f / 255), near = beside[i] * fleast(clear * (1 / BESIDE_CLEAR), 1.0f);
        hidden[i] = fmost(own[i], fmost(soft[i] * clear, near) * (f32)covered[i]) * moved;
    }
    convolve(hidden, w, h, 1, kernel, gaussian(0.8f, 3, kernel), rows, soft);
    for (size_t i = 0; i < n; i++) inner[i] = soft[i] > LEAST_WEIGHT;
    Box k = box_of(inner, w, h);
    int bw = k.x1 - k.x0, bh = k.y1 - k.y0;
    if (bw <= 0) return 0;
    u8 *filled = BYTES(&room, 4 * (size_t)bw * bh);
    if (!filled) return -1;
    for (int y = 0; y < bh; y++)
        for (int x = 0; x < bw; x++) {
            int gx = x + k.x0, gy = y + k.y0;
            size_t g = (size_t)gy * w + gx;
            u8 *to = filled + 4 * ((size_t)y * bw + x);
            memset(to, 0, 4);
            to[3] = (u8)(int)within(soft[g] * 255.0f, 0, 255);
            if (!(soft[g] * 255.0f >= 1)) continue;
            f32 colour[3] = {0, 0, 0};
            if (covered[g]) colour_at(s, b, g, colour);
            else  // the rim takes a neighbour's colour, so that none of the emptiness beside it blends in
                for (int j = most(gy - 1, k.y0); j <= least(gy + 1, k.y1 - 1); j++)
                    for (int i = most(gx - 1, k.x0); i <= least(gx + 1, k.x1 - 1); i++) {
                        f32 near[3];
                        if (!covered[(size_t)j * w + i]) continue;
                        colour_at(s, b, (size_t)j * w + i, near);
                        for (int c = 0; c < 3; c++) colour[c] = fmost(colour[c], near[c]);
                    }
            for (int c = 0; c < 3; c++) to[c] = (u8)(int)within(colour[c] * soft[g], 0, 255);
        }
    double ty = (double)H / h, tx = (double)W / w;
    int top = (int)rint(k.y0 * ty), low = (int)rint(k.y1 * ty), left = (int)rint(k.x0 * tx), right = (int)rint(k.x1 * tx);
    for (int y = top; y < low; y++) {
        Pair v = pair_of(y - top, bh, low - top);
        const u8 *up = filled + 4 * (size_t)v.a * bw, *down = filled + 4 * (size_t)v.b * bw;
        for (int x = left; x < right; x++) {
            Pair c = pair_of(x - left, bw, right - left);
            uint32_t words[4];
            memcpy(words, up + 4 * c.a, 4); memcpy(words + 1, up + 4 * c.b, 4);
            memcpy(words + 2, down + 4 * c.a, 4); memcpy(words + 3, down + 4 * c.b, 4);
            if (!(words[0] | words[1] | words[2] | words[3])) continue;
            f32x4 p = four(up + 4 * c.a), q = four(up + 4 * c.b), r = four(down + 4 * c.a), t = four(down + 4 * c.b);
            f32x4 first = p + c.t * (q - p), second = r + c.t * (t - r);
            u8 over[4], *to = b->picture + 4 * ((size_t)y * W + x);
            put_four(over, first + v.t * (second - first));
            f32 clear = (f32)(255 - over[3]) * (1.0f / 255);
            put_four(to, four(to) * clear);
            for (int i = 0; i < 4; i++) to[i] = (u8)least(to[i] + over[i], 255);
        }
    }
    return 0;
}

// anti-alias where one surface passes before another
static int soften(const Shape *s, const Buffers *b, const f32 *depth, const f32 *flow, const f32 *behind, const u8 *covered,
                  Room room) {
    int w = s->w, h = s->h, W = s->W, H = s->H;
    size_t n = (size_t)w * h;
    f32 *high = FLOATS(&room, 2 * n), *low = FLOATS(&room, 2 * n), *rows = FLOATS(&room, 2 * n), *steep = FLOATS(&room, n);
    u8 *inside = BYTES(&room, n), *out = BYTES(&room, n), *in = BYTES(&room, n), *spare = BYTES(&room, n);
    u8 *lines = BYTES(&room, 4 * 2 * (size_t)W);
    if (!lines) return -1;
    steepness(flow, w, h, rows, high, low, steep);
    spread(depth, w, h, 1, 1, 0, 1, rows, high);
    spread(depth, w, h, 1, 1, 0, 0, rows, low);
    spread_bytes(covered, w, h, 1, 1, 1, 0, spare, inside);
    spread_bytes(covered, w, h, 1, 1, 0, 1, spare, out);
    spread_bytes(covered, w, h, 1, 1, 0, 0, spare, in);
    int any = 0;
    for (size_t i = 0; i < n; i++) {
        int inner = high[i] - low[i] > CONTOUR_DEPTH * (f32)h && inside[i] && steep[i] > CONTOUR_PX;
        f32 apart = fmost(fabsf(flow[2 * i] - behind[2 * i]),
                          fabsf(flow[2 * i + 1] - (behind[2 * i + 1] - (f32)s->below_px)));
        any |= spare[i] = inner || (out[i] != in[i] && apart > CONTOUR_PX);
    }
    if (!any) return 0;
    // a row is written once the row below it has been read
    u8 *before = lines, *own = lines + 4 * (size_t)W;
    memcpy(before, b->picture + (H > 1 ? 4 * (size_t)W : 0), 4 * (size_t)W);  // mirrored: the row below the first
    for (int y = 0; y < H; y++) {
        u8 *to = b->picture + 4 * (size_t)y * W;
        memcpy(own, to, 4 * (size_t)W);
        const u8 *mask = spare + (size_t)least((int)((y + 0.5) * h / H + 0.5), h - 1) * w;  // see `_beside`
        const u8 *after = y + 1 < H ? to + 4 * (size_t)W : before;
        for (int g = 0; g < w; g++) {
            if (!mask[g]) continue;
            int x0 = most((int)ceil((g - 0.5) * W / w - 0.5 - 1e-9), 0);
            int x1 = g + 1 < w ? least((int)ceil((g + 0.5) * W / w - 0.5 - 1e-9), W) : W;
            for (int x = x0; x < x1; x++) {
                int l = mirrored(x - 1, W), r = mirrored(x + 1, W);
                for (int k = 0; k < 4; k++) {
                    int total = before[4 * l + k] + before[4 * x + k] + before[4 * r + k] + own[4 * l + k] + own[4 * x + k] +
                                own[4 * r + k] + after[4 * l + k] + after[4 * x + k] + after[4 * r + k];
                    to[4 * x + k] = (u8)((2 * total + 9) / 18);
                }
            }
        }
        u8 *turn = before; before = own; own = turn;
    }
    return 0;
}

// Gives 0, or −1 when the room does not suffice.
int visavis_layers(const Shape *s, const Buffers *b) {
    int w = s->w, h = s->h;
    size_t n = (size_t)w * h;
    Room room = {b->room, b->room + b->room_bytes};
    f32 *flow = FLOATS(&room, 2 * n), *behind = FLOATS(&room, 2 * n), *depth = FLOATS(&room, n);
    f32 *coarse = FLOATS(&room, 2 * (size_t)s->follow_w * s->follow_h);
    u8 *covered = BYTES(&room, n), *skin = BYTES(&room, n), *wider = BYTES(&room, n), *spare = BYTES(&room, n);
    if (!spare) return -1;
    f32 across = (f32)s->W / (f32)w, down = (f32)s->H / (f32)h, side = (f32)s->map_px;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            size_t i = (size_t)y * w + x;
            covered[i] = b->part[i] != 0;
            skin[i] = b->outside[b->part[i]];
            flow[2 * i] = flow[2 * i + 1] = b->seen[i] = 0;
            depth[i] = b->depth[i];
            if (!covered[i]) continue;
            f32 found[4];
            look_up(b->source, s->map_px, s->map_px, 4, b->uv[2 * i] * side - 0.5f, b->uv[2 * i + 1] * side - 0.5f, found);
            flow[2 * i] = found[0] - (((f32)x + 0.5f) * across + (f32)s->margin_px);
            flow[2 * i + 1] = found[1] - (((f32)y + 0.5f) * down + (f32)s->margin_px);
            b->seen[i] = found[2];
            depth[i] += found[3] * (CONTOUR_BEHIND * (f32)h);  // see `steps_between`
        }
    body_flow(s, b->follow, coarse);
    enlarge(coarse, s->follow_w, s->follow_h, 2, behind, w, h);
    if (rim_flow(s, b, flow, behind, room)) return -1;
    for (size_t i = 0; i < n; i++) {
        b->both[2 * i] = covered[i] ? flow[2 * i] : behind[2 * i];
        b->both[2 * i + 1] = covered[i] ? flow[2 * i + 1] : behind[2 * i + 1];
        behind[2 * i + 1] += (f32)s->below_px;
        if (!skin[i]) flow[2 * i] = flow[2 * i + 1] = 0;
    }
    grow(flow, skin, w, h, 2, wider, spare);
    Parting parting = {{0, 0, 0, 0}, NULL, NULL, NULL};
    Room kept = room;
    if (contours(s, b, depth, flow, skin, &parting, &kept)) return -1;
    if (warp(s, b, flow, behind, covered, &parting, kept)) return -1;
    if (draw_hidden(s, b, flow, covered, room)) return -1;
    return soften(s, b, depth, flow, behind, covered, room);
}
