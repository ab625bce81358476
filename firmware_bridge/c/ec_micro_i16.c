/* The micro model in integers. Ranges stand beside the arithmetic; the limits that they rest on are checked in
 * ec_micro_open (../BLOB.md, "Arithmetic"). */
#include "ec_micro_internal.h"

#include <string.h>

#define ONE_SCORE 2048
#define ONE_SHARE 256
#define FULL 32767

int16_t ec_micro_quantise(const ec_micro *m, float value) {
    const float scaled = value / m->scale * m->steps;
    if (scaled != scaled) return 0;
    if (scaled >= 32767.0f) return 32767;
    if (scaled <= -32767.0f) return -32767;
    return (int16_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
}

static void spread_i16(const ec_micro *m, const int16_t *window, int16_t *padded) {
    const size_t length = ec_micro_padded_samples(m);
    for (size_t c = 0; c < m->channels; c++, padded += length) {
        memset(padded, 0, length * sizeof *padded);
        for (size_t t = 0; t < m->samples; t++) padded[EC_MICRO_REACH + t] = window[t * m->channels + c];
    }
}

/* Returns value / 2^shift, rounded to nearest, halves away from zero; |value| < 2^62, shift <= 47. */
static int64_t shifted(int64_t value, uint32_t shift) {
    const uint64_t half = shift == 0 ? 0 : (uint64_t)1 << (shift - 1);
    const uint64_t size = ((uint64_t)(value < 0 ? -value : value) + half) >> shift;
    return value < 0 ? -(int64_t)size : (int64_t)size;
}

/* The features of one kernel as scores: the value in deviations from its mean, 2048 for one, saturated at 8. */
static void score_i16(const ec_micro *m, uint32_t feature, int32_t value, int16_t *scores) {
    const int32_t mean = ((const int32_t *)m->means)[feature];
    const uint16_t factor = ((const uint16_t *)m->factors)[feature];
    /* |value - mean| < 2^32, factor < 2^16: the product is below 2^48 */
    const int64_t score = shifted(((int64_t)value - mean) * factor, m->shifts[feature]);
    const int64_t most = 8 * ONE_SCORE;
    scores[feature] = (int16_t)(score > most ? most : score < -most ? -most : score);
}

/* Adds what one channel contributes to a block of outputs; `x` is where the first tap of the first output is. At every
 * step |output| <= 2^30 + 32768 * 32767 < 2^31, because bias and sum of |weights| of a kernel are limited. */
static void add_channel_i16(const int16_t *weights, const int16_t *x, size_t dilation, int32_t *outputs) {
    int32_t a = outputs[0], b = outputs[1], c = outputs[2], d = outputs[3];
    for (uint32_t j = 0; j < EC_MICRO_TAPS; j++, x += dilation) {
        const int32_t weight = weights[j];
        a += weight * x[0];
        b += weight * x[1];
        c += weight * x[2];
        d += weight * x[3];
    }
    outputs[0] = a, outputs[1] = b, outputs[2] = c, outputs[3] = d;
}

static void kernel_i16(const ec_micro *m, const int16_t *padded, ec_micro_kernel kernel, int16_t *scores) {
    const size_t length = ec_micro_padded_samples(m);
    const int16_t *weights = (const int16_t *)m->weights + (size_t)kernel.tap * EC_MICRO_TAPS;
    const int32_t bias = ((const int32_t *)m->biases)[kernel.index];
    int32_t positive = 0, largest = INT32_MIN;
    uint32_t halvings = 0;
    uint64_t size = 0; /* <= 2^12 outputs below 2^31 */
    for (uint32_t t = 0; t < m->samples; t += EC_MICRO_BLOCK) {
        const uint32_t count = m->samples - t < EC_MICRO_BLOCK ? m->samples - t : EC_MICRO_BLOCK;
        int32_t outputs[EC_MICRO_BLOCK] = {bias, bias, bias, bias};
        for (uint32_t s = 0; s < kernel.seen; s++) {
            const int16_t *channel = padded + m->tap_channels[kernel.tap + s] * length;
            const int16_t *x = channel + EC_MICRO_REACH + t - 3 * kernel.dilation;
            add_channel_i16(weights + s * EC_MICRO_TAPS, x, kernel.dilation, outputs);
        }
        for (uint32_t i = 0; i < count; i++) {
            positive += outputs[i] > 0;
            if (outputs[i] > largest) largest = outputs[i];
            size += (uint32_t)(outputs[i] < 0 ? -outputs[i] : outputs[i]);
        }
    }
    while ((1u << halvings) < m->samples) halvings++;
    score_i16(m, 3 * kernel.index, positive * ONE_SHARE, scores); /* <= 2^20 */
    score_i16(m, 3 * kernel.index + 1, largest, scores);
    score_i16(m, 3 * kernel.index + 2, (int32_t)(size >> halvings), scores); /* a mean, or less: < 2^31 */
}

/* Returns floor(sqrt(value)), bit by bit. */
static uint32_t root(uint64_t value) {
    uint64_t rest = value, found = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit > 0; bit >>= 2) {
        if (rest >= found + bit) {
            rest -= found + bit;
            found = (found >> 1) + bit;
        } else {
            found >>= 1;
        }
    }
    return (uint32_t)found;
}

/* Scales rows (in place of sums * factors) to 15 bits for the largest, then to unit length. */
static void normalise_i16(const ec_micro *m, int32_t *rows, int16_t *embedding) {
    uint64_t most = 0, squares = 0;
    int32_t excess = -15;
    uint32_t norm;
    for (uint32_t r = 0; r < m->dimensions; r++) {
        const int64_t y = (int64_t)rows[r] * m->row_factors[r]; /* < 2^31 * 2^16 */
        const uint64_t size = (uint64_t)(y < 0 ? -y : y);
        if (size > most) most = size;
    }
    if (most == 0) {
        memset(embedding, 0, 2 * (size_t)m->dimensions);
        return;
    }
    for (; most > 0; most >>= 1) excess++;
    for (uint32_t r = 0; r < m->dimensions; r++) {
        const int64_t y = (int64_t)rows[r] * m->row_factors[r];
        rows[r] = (int32_t)(excess > 0 ? shifted(y, (uint32_t)excess) : y * (1 << -excess)); /* |.| <= 2^15 */
        squares += (uint64_t)((int64_t)rows[r] * rows[r]); /* <= 2^10 * 2^30 */
    }
    norm = root(squares); /* >= each |row|, so no number of the embedding is above FULL */
    for (uint32_t r = 0; r < m->dimensions; r++) {
        const uint32_t size = (uint32_t)(rows[r] < 0 ? -rows[r] : rows[r]);
        const uint32_t part = (size * (2u * FULL) + norm) / (2 * norm); /* 2^15 * 65534 + 2^20 < 2^32 */
        embedding[r] = (int16_t)(rows[r] < 0 ? -(int32_t)part : (int32_t)part);
    }
}

ec_status ec_micro_embed_i16(const ec_micro *m, const int16_t *window, void *scratch, size_t scratch_bytes,
                             int16_t *embedding) {
    const int8_t *head;
    int32_t *rows = scratch;
    int16_t *scores, *padded;
    if (!ec_micro_usable(m, EC_INT8, window, scratch, scratch_bytes, embedding)) return EC_BAD_ARGUMENT;
    head = m->head;
    scores = (int16_t *)(void *)(rows + m->dimensions);
    padded = scores + m->width;
    spread_i16(m, window, padded);
    for (ec_micro_kernel k = ec_micro_first_kernel(m); k.index < m->width / 3u; k = ec_micro_next_kernel(m, k))
        kernel_i16(m, padded, k, scores);
    for (uint32_t r = 0; r < m->dimensions; r++, head += m->width) {
        int32_t sum = 0; /* <= 128 * 16384 * 1020 < 2^31 */
        for (uint32_t i = 0; i < m->width; i += 4) { /* the width is a multiple of 12 */
            sum += (int32_t)head[i] * scores[i];
            sum += (int32_t)head[i + 1] * scores[i + 1];
            sum += (int32_t)head[i + 2] * scores[i + 2];
            sum += (int32_t)head[i + 3] * scores[i + 3];
        }
        rows[r] = sum;
    }
    normalise_i16(m, rows, embedding);
    return EC_OK;
}

ec_status ec_micro_nearest_i16(const ec_micro *m, const int16_t *embedding, uint16_t *label, float *cosine) {
    const int8_t *row;
    int64_t best = INT64_MIN;
    uint16_t found = 0;
    if (m == NULL || embedding == NULL || m->precision != EC_INT8 || m->labels == 0) return EC_BAD_ARGUMENT;
    row = m->label_embeddings;
    for (uint16_t l = 0; l < m->labels; l++, row += m->dimensions) {
        int64_t sum = 0; /* <= 2^10 * 2^15 * 2^7, whatever the embedding is */
        for (uint32_t r = 0; r < m->dimensions; r++) sum += (int32_t)embedding[r] * row[r];
        if (sum > best) best = sum, found = l;
    }
    if (label != NULL) *label = found;
    if (cosine != NULL) *cosine = (float)best * m->label_step;
    return EC_OK;
}
