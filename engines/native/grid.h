// Small pictures of floats: what OpenCV does to them in several passes, without its calls.
#ifndef VISAVIS_GRID_H
#define VISAVIS_GRID_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE4_1__
#include <immintrin.h>
#endif

typedef float f32;
typedef uint8_t u8;

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }
static inline f32 fleast(f32 a, f32 b) { return a < b ? a : b; }
static inline f32 fmost(f32 a, f32 b) { return a > b ? a : b; }

// within lo … hi; what is no number becomes lo, so that it can be turned into a whole number
static inline f32 within(f32 v, f32 lo, f32 hi) { return v > lo ? (v < hi ? v : hi) : lo; }

static inline u8 to_byte(f32 v) { return (u8)(int)(within(v, 0.0f, 255.0f) + 0.5f); }

// a place beyond a border, mirrored about the outermost pixel's middle
static inline int mirrored(int k, int count) {
    if (count == 1) return 0;
    while (k < 0 || k >= count) k = k < 0 ? -k : 2 * count - 2 - k;
    return k;
}

// where a bilinear lookup reads: two neighbours and the share of the second
typedef struct { int a, b; f32 t; } Pair;

static inline Pair pair_at(f32 place, int count) {
    f32 p = within(place, 0.0f, (f32)(count - 1));
    int a = (int)p;
    Pair out = {a, a + 1 < count ? a + 1 : a, p - (f32)a};
    return out;
}

// bilinear, the edge repeated; `c` channels lie side by side
static inline void look_up(const f32 *map, int width, int height, int c, f32 x, f32 y, f32 *out) {
    Pair h = pair_at(x, width), v = pair_at(y, height);
    const f32 *top = map + (size_t)v.a * width * c, *low = map + (size_t)v.b * width * c;
    for (int k = 0; k < c; k++) {
        f32 up = top[h.a * c + k] + h.t * (top[h.b * c + k] - top[h.a * c + k]);
        f32 down = low[h.a * c + k] + h.t * (low[h.b * c + k] - low[h.a * c + k]);
        out[k] = up + v.t * (down - up);
    }
}

// the four channels of a pixel, side by side
typedef f32 f32x4 __attribute__((vector_size(16)));

#ifdef __SSE4_1__
static inline f32x4 four(const u8 *at) {
    int32_t word;
    memcpy(&word, at, 4);
    return (f32x4)_mm_cvtepi32_ps(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(word)));
}

static inline void put_four(u8 *at, f32x4 v) {  // 0 … 255, rounded
    __m128i words = _mm_cvttps_epi32((__m128)(v + 0.5f));
    int32_t word = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(words, words), words));
    memcpy(at, &word, 4);
}

static inline f32x4 rounded(f32x4 v) { return (f32x4)_mm_cvtepi32_ps(_mm_cvttps_epi32((__m128)(v + 0.5f))); }

static inline f32x4 bounded(f32x4 v) {  // 0 … 255
    return (f32x4)_mm_max_ps(_mm_min_ps((__m128)v, _mm_set1_ps(255.0f)), _mm_setzero_ps());
}
#else
static inline f32x4 four(const u8 *at) { return (f32x4){at[0], at[1], at[2], at[3]}; }

static inline void put_four(u8 *at, f32x4 v) {
    for (int k = 0; k < 4; k++) at[k] = (u8)(int)(v[k] + 0.5f);
}

static inline f32x4 rounded(f32x4 v) {
    for (int k = 0; k < 4; k++) v[k] = (f32)(int)(v[k] + 0.5f);
    return v;
}

static inline f32x4 bounded(f32x4 v) {
    for (int k = 0; k < 4; k++) v[k] = within(v[k], 0.0f, 255.0f);
    return v;
}
#endif

static inline f32x4 loaded(const f32 *at) {
    f32x4 v;
    memcpy(&v, at, sizeof v);
    return v;
}

static inline f32x4 blended(f32x4 a, f32x4 b, f32 t) { return a + t * (b - a); }

static inline Pair pair_of(int k, int from, int to) {  // pixel k of `to` in a row of `from`, middles at .5
    return pair_at(((f32)k + 0.5f) * ((f32)from / (f32)to) - 0.5f, from);
}

// the same for a whole row, each kind of number apart
typedef struct { int32_t *a, *b; f32 *t; } Pairs;

static void pairs_of(int begin, int count, int from, int to, Pairs out) {
    f32 step = (f32)from / (f32)to, last = (f32)(from - 1);
    for (int i = 0; i < count; i++) {
        f32 p = within(((f32)(begin + i) + 0.5f) * step - 0.5f, 0.0f, last);
        int a = (int)p;
        out.a[i] = a;
        out.b[i] = least(a + 1, from - 1);
        out.t[i] = p - (f32)a;
    }
}

// (h0, w0, c) → (h1, w1, c), bilinear
static void enlarge(const f32 *in, int w0, int h0, int c, f32 *out, int w1, int h1) {
    for (int y = 0; y < h1; y++) {
        Pair v = pair_of(y, h0, h1);
        const f32 *top = in + (size_t)v.a * w0 * c, *low = in + (size_t)v.b * w0 * c;
        for (int x = 0; x < w1; x++) {
            Pair h = pair_of(x, w0, w1);
            for (int k = 0; k < c; k++) {
                f32 up = top[h.a * c + k] + h.t * (top[h.b * c + k] - top[h.a * c + k]);
                f32 down = low[h.a * c + k] + h.t * (low[h.b * c + k] - low[h.a * c + k]);
                out[((size_t)y * w1 + x) * c + k] = up + v.t * (down - up);
            }
        }
    }
}

// the pixels of a longer row in one pixel of a shorter one, and their shares; of more than 64 the first
enum { MOST_SHARES = 64 };
typedef struct { int first, count; f32 share[MOST_SHARES]; } Shares;

static Shares shares_of(int k, int from, int to) {
    double step = (double)from / to, begin = k * step, end = fmin(begin + step, from);
    Shares out = {(int)floor(begin + 1e-6), 0, {0}};
    for (int i = out.first; i < from && i < end - 1e-6 && out.count < MOST_SHARES; i++)
        out.share[out.count++] = (f32)((fmin(end, i + 1.0) - fmax(begin, i)) / fmin(end - begin, MOST_SHARES));
    return out;
}

// (h0, w0, c) → (h1, w1, c), smaller, averaged by area; `columns` is room for w1, `line` for w0 c
static void shrink(const f32 *in, int w0, int h0, int c, Shares *columns, f32 *line, f32 *out, int w1, int h1) {
    for (int x = 0; x < w1; x++) columns[x] = shares_of(x, w0, w1);
    for (int y = 0; y < h1; y++) {
        Shares rows = shares_of(y, h0, h1);
        memset(line, 0, sizeof(f32) * w0 * c);
        for (int j = 0; j < rows.count; j++) {
            const f32 *from = in + (size_t)(rows.first + j) * w0 * c;
            for (int i = 0; i < w0 * c; i++) line[i] += rows.share[j] * from[i];
        }
        for (int x = 0; x < w1; x++)
            for (int k = 0; k < c; k++) {
                f32 total = 0;
                for (int i = 0; i < columns[x].count; i++)
                    total += columns[x].share[i] * line[(columns[x].first + i) * c + k];
                out[((size_t)y * w1 + x) * c + k] = total;
            }
    }
}

// most (or least) of what lies −before … +after of each place in both directions; beyond the border is nothing
#define SPREAD(name, type)                                                                                             \
    static void name(const type *in, int w, int h, int c, int before, int after, int largest, type *rows, type *out) { \
        size_t line = (size_t)w * c;                                                                                   \
        for (int y = 0; y < h; y++) {                                                                                  \
            const type *from = in + (size_t)y * line;                                                                  \
            type *to = rows + (size_t)y * line;                                                                        \
            memcpy(to, from, sizeof(type) * line);                                                                     \
            for (int i = -before; i <= after; i++) {                                                                   \
                int begin = c * most(0, -i), end = c * least(w, w - i);                                                \
                const type *beside = from + i * c;                                                                     \
                if (largest)                                                                                           \
                    for (int x = begin; x < end; x++) to[x] = to[x] > beside[x] ? to[x] : beside[x];                   \
                else                                                                                                   \
                    for (int x = begin; x < end; x++) to[x] = to[x] < beside[x] ? to[x] : beside[x];                   \
            }                                                                                                          \
        }                                                                                                              \
        for (int y = 0; y < h; y++) {                                                                                  \
            type *to = out + (size_t)y * line;                                                                         \
            memcpy(to, rows + (size_t)y * line, sizeof(type) * line);                                                  \
            for (int j = most(y - before, 0); j <= least(y + after, h - 1); j++) {                                     \
                const type *beside = rows + (size_t)j * line;                                                          \
                if (largest)                                                                                           \
                    for (size_t x = 0; x < line; x++) to[x] = to[x] > beside[x] ? to[x] : beside[x];                   \
                else                                                                                                   \
                    for (size_t x = 0; x < line; x++) to[x] = to[x] < beside[x] ? to[x] : beside[x];                   \
            }                                                                                                          \
        }                                                                                                              \
    }
SPREAD(spread, f32)
SPREAD(spread_bytes, u8)

// a symmetric kernel of 2 r + 1 numbers in both directions, borders mirrored; `rows` is room for as much as `in`
static void convolve(const f32 *in, int w, int h, int c, const f32 *kernel, int r, f32 *rows, f32 *out) {
    for (int y = 0; y < h; y++) {
        const f32 *from = in + (size_t)y * w * c;
        f32 *to = rows + (size_t)y * w * c;
        memset(to, 0, sizeof(f32) * w * c);
        for (int i = -r; i <= r; i++) {
            f32 share = kernel[i + r];
            int x0 = least(most(0, -i), w), x1 = most(least(w, w - i), x0);
            for (int x = 0; x < x0; x++)
                for (int k = 0; k < c; k++) to[x * c + k] += share * from[mirrored(x + i, w) * c + k];
            for (int j = x0 * c; j < x1 * c; j++) to[j] += share * from[j + i * c];
            for (int x = x1; x < w; x++)
                for (int k = 0; k < c; k++) to[x * c + k] += share * from[mirrored(x + i, w) * c + k];
        }
    }
    for (int y = 0; y < h; y++) {
        f32 *to = out + (size_t)y * w * c;
        memset(to, 0, sizeof(f32) * w * c);
        for (int j = -r; j <= r; j++) {
            const f32 *from = rows + (size_t)mirrored(y + j, h) * w * c;
            f32 share = kernel[j + r];
            for (int i = 0; i < w * c; i++) to[i] += share * from[i];
        }
    }
}

static int gaussian(f32 sigma, int r, f32 *kernel) {
    double total = 0;
    for (int i = -r; i <= r; i++) total += exp(-0.5 * i * i / ((double)sigma * sigma));
    for (int i = -r; i <= r; i++) kernel[i + r] = (f32)(exp(-0.5 * i * i / ((double)sigma * sigma)) / total);
    return r;
}

// values (h, w, c), 0 where not covered, go on for two pixels beyond what is covered, in place
static void grow(f32 *values, const u8 *covered, int w, int h, int c, u8 *wider, u8 *room) {
    spread_bytes(covered, w, h, 1, 2, 2, 1, room, wider);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            size_t at = (size_t)y * w + x;
            if (covered[at] || !wider[at]) continue;
            f32 total[4] = {0}, count = 0;
            for (int j = most(y - 2, 0); j <= least(y + 2, h - 1); j++)
                for (int i = most(x - 2, 0); i <= least(x + 2, w - 1); i++) {
                    size_t there = (size_t)j * w + i;
                    if (!covered[there]) continue;
                    count += 1;
                    for (int k = 0; k < c; k++) total[k] += values[there * c + k];
                }
            // read only where covered, so that writing here spoils no neighbour's mean
            for (int k = 0; k < c; k++) values[at * c + k] = count > 0 ? total[k] / count : 0;
        }
}

// bilinear lookups of a row of pixels, the edge repeated; the canvas is at least two pixels wide and high
static void sample(const u8 *restrict canvas, int width, int height, const f32 *restrict x, const f32 *restrict y,
                   int count, u8 *restrict out) {
    enum { SOME = 64 };
    int32_t at[SOME];
    f32 across[SOME], down[SOME];
    f32 right = (f32)(width - 1), low = (f32)(height - 1);
    size_t line = 4 * (size_t)width;
    for (int begin = 0; begin < count; begin += SOME) {
        int some = least(SOME, count - begin);
        for (int i = 0; i < some; i++) {
            f32 px = within(x[begin + i], 0.0f, right), py = within(y[begin + i], 0.0f, low);
            int left = least((int)px, width - 2), top = least((int)py, height - 2);
            at[i] = top * width + left;
            across[i] = px - (f32)left;
            down[i] = py - (f32)top;
        }
        for (int i = 0; i < some; i++) {
            const u8 *from = canvas + 4 * (size_t)at[i];
            f32x4 a = four(from), b = four(from + 4), c = four(from + line), d = four(from + line + 4);
            f32x4 up = a + across[i] * (b - a), under = c + across[i] * (d - c);
            put_four(out + 4 * (begin + i), up + down[i] * (under - up));
        }
    }
}

#endif
