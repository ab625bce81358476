/* The micro model. Ranges stand beside the arithmetic; the limits that they rest on are checked in ec_micro_open. */
#include "ec_micro.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define HEADER 108u
#define MAX_BYTES (1ul << 24)
#define TAPS 7u
#define REACH 24u /* samples that the widest kernel (dilation 8) sees on either side */
#define BLOCK 4u  /* outputs computed at once, so that a weight is loaded once for all of them */
#define CLIP 8.0f
#define ONE_SCORE 2048
#define ONE_SHARE 256
#define FULL 32767

/* ---- opening ---- */

static uint16_t u16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }

static uint32_t u32(const uint8_t *at) { return u16(at) | (uint32_t)u16(at + 2) << 16; }

static int little_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
}

static uint32_t crc32(const uint8_t *data, size_t size) {
    static const uint32_t table[16] = {0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
                                       0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
                                       0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; i++) {
        crc = table[(crc ^ data[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ (uint32_t)(data[i] >> 4)) & 15] ^ crc >> 4;
    }
    return ~crc;
}

static int within(uint32_t value, uint32_t low, uint32_t high) { return value >= low && value <= high; }

static int all_zero(const uint8_t *data, size_t size) {
    while (size > 0 && data[size - 1] == 0) size--;
    return size == 0;
}

static int finite_f32(float value) { return value - value == 0.0f; }

static int all_finite(const void *data, size_t count) {
    const float *values = data;
    while (count > 0 && finite_f32(values[count - 1])) count--;
    return count == 0;
}

/* A modality's name, and zeros up to the end of its field: so it is a C string. */
static int valid_modality(const uint8_t *field) {
    size_t length = 0;
    while (length < 33 && field[length] != 0) {
        const uint8_t c = field[length];
        const int letter = c >= 'a' && c <= 'z';
        if (!letter && (length == 0 || !(c == '_' || (c >= '0' && c <= '9')))) return 0;
        length++;
    }
    return length > 0 && length < 33 && all_zero(field + length, 36 - length);
}

/* Reads the header; afterwards all counts are within their limits. */
static ec_status read_header(const uint8_t *blob, size_t size, ec_micro *m) {
    if (size < HEADER + 4 || size > MAX_BYTES || memcmp(blob, "ECMM", 4) != 0) return EC_BAD_FORMAT;
    if (u16(blob + 4) != 1 || blob[6] > 1 || blob[7] != 0 || u32(blob + 8) != size) return EC_BAD_FORMAT;
    m->precision = blob[6] == 1 ? EC_INT8 : EC_FLOAT32;
    m->channels = u16(blob + 12);
    m->samples = u16(blob + 14);
    m->width = u16(blob + 16);
    m->dimensions = u16(blob + 18);
    m->taps = u32(blob + 20);
    m->labels = u16(blob + 24);
    m->name_bytes = u32(blob + 28);
    memcpy(&m->input_shift, blob + 26, 2);
    memcpy(&m->scale, blob + 32, 4);
    memcpy(&m->label_step, blob + 36, 4);
    m->modality = (const char *)(blob + 40);
    m->generation = blob + 76;
    if (!within(m->channels, 1, 1024) || !within(m->samples, 16, 4096) || !within(m->width, 12, 1020) ||
        m->width % 12 != 0 || !within(m->dimensions, 1, 1024) || m->labels > 1024 || m->name_bytes > 1ul << 20)
        return EC_BAD_FORMAT;
    if (!within(m->taps, m->width / 3u, m->width / 3u * m->channels)) return EC_BAD_FORMAT;
    if (m->precision == EC_INT8 ? m->input_shift < -16 || m->input_shift > 15 : m->input_shift != 0)
        return EC_BAD_FORMAT;
    if (!finite_f32(m->scale) || !(m->scale > 0) || !finite_f32(m->label_step) || !(m->label_step >= 0) ||
        (m->labels == 0 && m->label_step > 0))
        return EC_BAD_FORMAT;
    m->steps = m->input_shift < 0 ? 1.0f / (float)(1ul << -m->input_shift) : (float)(1ul << m->input_shift);
    return valid_modality(blob + 40) ? EC_OK : EC_BAD_FORMAT;
}

/* A walk over the sections. */
typedef struct walk {
    const uint8_t *blob;
    size_t end; /* of what sections may fill */
    size_t at;
    int whole; /* 0 once a section did not fit or its padding was not zero */
} walk;

/* Returns the next section of `count` items of `bytes` each (at most 24 MB by the limits of the counts), and walks past it
 * and its padding. */
static const void *section(walk *w, uint32_t count, uint32_t bytes) {
    const size_t size = (size_t)count * bytes, padding = (4 - size % 4) % 4;
    const uint8_t *found = w->blob + w->at;
    if (!w->whole || size + padding > w->end - w->at || !all_zero(found + size, padding)) {
        w->whole = 0;
        return w->blob;
    }
    w->at += size + padding;
    return found;
}

static int place_sections(const uint8_t *blob, size_t size, ec_micro *m) {
    walk w = {blob, size - 4, HEADER, 1};
    const int whole = m->precision == EC_INT8;
    const uint32_t kernels = m->width / 3u;
    m->kernels = section(&w, kernels, 4);
    m->tap_channels = section(&w, m->taps, 2);
    m->weights = section(&w, m->taps * TAPS, whole ? 2 : 4);
    m->biases = section(&w, kernels, 4);
    m->means = section(&w, m->width, 4);
    m->factors = section(&w, m->width, whole ? 2 : 4);
    m->shifts = section(&w, whole ? m->width : 0, 1);
    m->head = section(&w, (uint32_t)m->dimensions * m->width, whole ? 1 : 4);
    m->row_factors = section(&w, whole ? m->dimensions : 0, 2);
    m->label_embeddings = section(&w, (uint32_t)m->labels * m->dimensions, whole ? 1 : 4);
    m->name_ends = section(&w, m->labels, 4);
    m->names = section(&w, m->name_bytes, 1);
    return w.whole && w.at == w.end;
}

/* Checks kernels and their taps; of int8 also that no sum over a kernel can leave int32. */
static int valid_kernels(const ec_micro *m) {
    uint32_t tap = 0;
    for (uint32_t k = 0; k < m->width / 3u; k++) {
        const uint8_t *kernel = m->kernels + 4 * k;
        const uint16_t seen = u16(kernel + 2);
        const uint8_t d = kernel[0];
        if ((d != 1 && d != 2 && d != 4 && d != 8) || kernel[1] != 0) return 0;
        if (!within(seen, 1, m->channels) || seen > m->taps - tap) return 0;
        if (m->precision == EC_INT8) {
            const int16_t *weights = (const int16_t *)m->weights + (size_t)tap * TAPS;
            const int32_t bias = ((const int32_t *)m->biases)[k];
            uint32_t sum = 0; /* <= 1024 * 7 * 2^15 < 2^28 */
            for (uint32_t i = 0; i < seen * TAPS; i++) sum += (uint32_t)(weights[i] < 0 ? -weights[i] : weights[i]);
            if (sum > 32767 || bias > 1l << 30 || bias < -(1l << 30)) return 0;
        }
        for (uint32_t i = 0; i < seen; i++, tap++)
            if (m->tap_channels[tap] >= m->channels) return 0;
    }
    return tap == m->taps;
}

static int valid_numbers(const ec_micro *m) {
    if (m->precision == EC_INT8) {
        for (uint32_t i = 0; i < m->width; i++)
            if (m->shifts[i] > 47) return 0;
        return 1;
    }
    return all_finite(m->weights, (size_t)m->taps * TAPS) && all_finite(m->biases, m->width / 3u) &&
           all_finite(m->means, m->width) && all_finite(m->factors, m->width) &&
           all_finite(m->head, (size_t)m->dimensions * m->width) &&
           all_finite(m->label_embeddings, (size_t)m->labels * m->dimensions);
}

static int valid_names(const ec_micro *m) {
    uint32_t start = 0;
    for (uint32_t i = 0; i < m->labels; i++) {
        const uint32_t end = m->name_ends[i];
        if (end <= start || end > m->name_bytes) return 0;
        if (memchr(m->names + start, 0, end - start) != m->names + end - 1) return 0;
        start = end;
    }
    return start == m->name_bytes;
}

ec_status ec_micro_open(const uint8_t *blob, size_t size, ec_micro *model) {
    ec_status status;
    if (blob == NULL || model == NULL || (uintptr_t)blob % 4 != 0) return EC_BAD_ARGUMENT;
    if (!little_endian()) return EC_UNSUPPORTED;
    status = read_header(blob, size, model);
    if (status != EC_OK) return status;
    if (crc32(blob, size - 4) != u32(blob + size - 4)) return EC_BAD_FORMAT;
    if (!place_sections(blob, size, model)) return EC_BAD_FORMAT;
    return valid_kernels(model) && valid_numbers(model) && valid_names(model) ? EC_OK : EC_BAD_FORMAT;
}

/* ---- what both precisions share ---- */

/* Of one channel: with zeros before, and behind up to what the last block of outputs may reach. */
static size_t padded_samples(const ec_micro *m) { return (size_t)m->samples + 2 * REACH + BLOCK; }

size_t ec_micro_scratch_bytes(const ec_micro *m) {
    const size_t window = (size_t)m->channels * padded_samples(m);
    if (m->precision == EC_FLOAT32) return 4 * (m->width + window);
    return 4 * (size_t)m->dimensions + 2 * (m->width + window);
}

static int usable(const ec_micro *m, ec_precision precision, const void *in, const void *scratch, size_t bytes,
                  const void *out) {
    return m != NULL && in != NULL && scratch != NULL && out != NULL && m->precision == precision &&
           (uintptr_t)scratch % 4 == 0 && bytes >= ec_micro_scratch_bytes(m);
}

const char *ec_micro_label(const ec_micro *m, uint16_t label) {
    if (m == NULL || label >= m->labels) return NULL;
    return m->names + (label == 0 ? 0 : m->name_ends[label - 1]);
}

/* ---- float32: each operation as written, rounded to float ---- */

/* Writes the window channel by channel, scaled, with zeros on both sides. */
static void spread_f32(const ec_micro *m, const float *window, float *padded) {
    const size_t length = padded_samples(m);
    for (size_t c = 0; c < m->channels; c++, padded += length) {
        for (size_t t = 0; t < length; t++) padded[t] = 0.0f;
        for (size_t t = 0; t < m->samples; t++) padded[REACH + t] = window[t * m->channels + c] / m->scale;
    }
}

/* Adds what one channel contributes to BLOCK outputs; `x` is where the first tap of the first output is. */
static void add_channel_f32(const float *weights, const float *x, size_t dilation, float *outputs) {
    float a = outputs[0], b = outputs[1], c = outputs[2], d = outputs[3];
    for (uint32_t j = 0; j < TAPS; j++, x += dilation) {
        const float weight = weights[j];
        a += weight * x[0];
        b += weight * x[1];
        c += weight * x[2];
        d += weight * x[3];
    }
    outputs[0] = a, outputs[1] = b, outputs[2] = c, outputs[3] = d;
}

/* Share of positive outputs, maximum and mean absolute output of one kernel. */
static void kernel_f32(const ec_micro *m, const float *padded, uint32_t k, uint32_t tap, float *features) {
    const uint32_t dilation = m->kernels[4 * k], seen = u16(m->kernels + 4 * k + 2);
    const size_t length = padded_samples(m);
    const float *weights = (const float *)m->weights + (size_t)tap * TAPS;
    const float bias = ((const float *)m->biases)[k];
    uint32_t positive = 0;
    float largest = -FLT_MAX, size = 0.0f;
    for (uint32_t t = 0; t < m->samples; t += BLOCK) {
        const uint32_t count = m->samples - t < BLOCK ? m->samples - t : BLOCK;
        float outputs[BLOCK] = {bias, bias, bias, bias};
        for (uint32_t s = 0; s < seen; s++) {
            const float *x = padded + m->tap_channels[tap + s] * length + REACH + t - 3 * dilation;
            add_channel_f32(weights + s * TAPS, x, dilation, outputs);
        }
        for (uint32_t i = 0; i < count; i++) {
            positive += outputs[i] > 0.0f;
            if (outputs[i] > largest) largest = outputs[i];
            size += outputs[i] < 0.0f ? -outputs[i] : outputs[i];
        }
    }
    features[0] = (float)positive / (float)m->samples;
    features[1] = largest;
    features[2] = size / (float)m->samples;
}

ec_status ec_micro_embed_f32(const ec_micro *m, const float *window, void *scratch, size_t scratch_bytes,
                             float *embedding) {
    const float *means, *factors, *head;
    float *scores = scratch, *padded, squares = 0.0f;
    if (!usable(m, EC_FLOAT32, window, scratch, scratch_bytes, embedding)) return EC_BAD_ARGUMENT;
    means = m->means, factors = m->factors, head = m->head;
    padded = scores + m->width;
    spread_f32(m, window, padded);
    for (uint32_t k = 0, tap = 0; k < m->width / 3u; tap += u16(m->kernels + 4 * k + 2), k++)
        kernel_f32(m, padded, k, tap, scores + 3 * k);
    for (uint32_t i = 0; i < m->width; i++) {
        const float score = (scores[i] - means[i]) * factors[i];
        if (!finite_f32(scores[i])) return EC_BAD_VALUE;
        scores[i] = score > CLIP ? CLIP : score < -CLIP ? -CLIP : score;
    }
    for (uint32_t r = 0; r < m->dimensions; r++, head += m->width) {
        float sum = 0.0f;
        for (uint32_t i = 0; i < m->width; i++) sum += scores[i] * head[i];
        embedding[r] = sum;
        squares += sum * sum;
    }
    if (!finite_f32(squares)) return EC_BAD_VALUE;
    if (squares > 0.0f) {
        const float norm = sqrtf(squares);
        for (uint32_t r = 0; r < m->dimensions; r++) embedding[r] /= norm;
    }
    return EC_OK;
}

ec_status ec_micro_nearest_f32(const ec_micro *m, const float *embedding, uint16_t *label, float *cosine) {
    const float *row;
    float best = -FLT_MAX;
    uint16_t found = 0;
    if (m == NULL || embedding == NULL || m->precision != EC_FLOAT32 || m->labels == 0) return EC_BAD_ARGUMENT;
    row = m->label_embeddings;
    for (uint16_t l = 0; l < m->labels; l++, row += m->dimensions) {
        float sum = 0.0f;
        for (uint32_t r = 0; r < m->dimensions; r++) sum += embedding[r] * row[r];
        if (sum > best) best = sum, found = l;
    }
    if (label != NULL) *label = found;
    if (cosine != NULL) *cosine = best;
    return EC_OK;
}

/* ---- int8: integers only ---- */

int16_t ec_micro_quantise(const ec_micro *m, float value) {
    const float scaled = value / m->scale * m->steps;
    if (scaled != scaled) return 0;
    if (scaled >= 32767.0f) return 32767;
    if (scaled <= -32767.0f) return -32767;
    return (int16_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
}

static void spread_i16(const ec_micro *m, const int16_t *window, int16_t *padded) {
    const size_t length = padded_samples(m);
    for (size_t c = 0; c < m->channels; c++, padded += length) {
        memset(padded, 0, length * sizeof *padded);
        for (size_t t = 0; t < m->samples; t++) padded[REACH + t] = window[t * m->channels + c];
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

/* Adds what one channel contributes to BLOCK outputs; `x` is where the first tap of the first output is. At every step
 * |output| <= 2^30 + 32768 * 32767 < 2^31, because bias and sum of |weights| of a kernel are limited. */
static void add_channel_i16(const int16_t *weights, const int16_t *x, size_t dilation, int32_t *outputs) {
    int32_t a = outputs[0], b = outputs[1], c = outputs[2], d = outputs[3];
    for (uint32_t j = 0; j < TAPS; j++, x += dilation) {
        const int32_t weight = weights[j];
        a += weight * x[0];
        b += weight * x[1];
        c += weight * x[2];
        d += weight * x[3];
    }
    outputs[0] = a, outputs[1] = b, outputs[2] = c, outputs[3] = d;
}

static void kernel_i16(const ec_micro *m, const int16_t *padded, uint32_t k, uint32_t tap, int16_t *scores) {
    const uint32_t dilation = m->kernels[4 * k], seen = u16(m->kernels + 4 * k + 2);
    const size_t length = padded_samples(m);
    const int16_t *weights = (const int16_t *)m->weights + (size_t)tap * TAPS;
    const int32_t bias = ((const int32_t *)m->biases)[k];
    int32_t positive = 0, largest = INT32_MIN;
    uint32_t halvings = 0;
    uint64_t size = 0; /* <= 2^12 outputs below 2^31 */
    for (uint32_t t = 0; t < m->samples; t += BLOCK) {
        const uint32_t count = m->samples - t < BLOCK ? m->samples - t : BLOCK;
        int32_t outputs[BLOCK] = {bias, bias, bias, bias};
        for (uint32_t s = 0; s < seen; s++) {
            const int16_t *x = padded + m->tap_channels[tap + s] * length + REACH + t - 3 * dilation;
            add_channel_i16(weights + s * TAPS, x, dilation, outputs);
        }
        for (uint32_t i = 0; i < count; i++) {
            positive += outputs[i] > 0;
            if (outputs[i] > largest) largest = outputs[i];
            size += (uint32_t)(outputs[i] < 0 ? -outputs[i] : outputs[i]);
        }
    }
    while ((1u << halvings) < m->samples) halvings++;
    score_i16(m, 3 * k, positive * ONE_SHARE, scores); /* <= 2^20 */
    score_i16(m, 3 * k + 1, largest, scores);
    score_i16(m, 3 * k + 2, (int32_t)(size >> halvings), scores); /* a mean, or less: < 2^31 */
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
    if (!usable(m, EC_INT8, window, scratch, scratch_bytes, embedding)) return EC_BAD_ARGUMENT;
    head = m->head;
    scores = (int16_t *)(void *)(rows + m->dimensions);
    padded = scores + m->width;
    spread_i16(m, window, padded);
    for (uint32_t k = 0, tap = 0; k < m->width / 3u; tap += u16(m->kernels + 4 * k + 2), k++)
        kernel_i16(m, padded, k, tap, scores);
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
