/* The micro model in float32: each operation as written, in this order, rounded to float (../BLOB.md, "Arithmetic"). */
#include "ec_micro_internal.h"

#include <float.h>
#include <math.h>

#define CLIP 8.0f

static int finite_f32(float value) { return value - value == 0.0f; }

/* Writes the window channel by channel, scaled, with zeros on both sides. */
static void spread_f32(const ec_micro *m, const float *window, float *padded) {
    const size_t length = ec_micro_padded_samples(m);
    for (size_t c = 0; c < m->channels; c++, padded += length) {
        for (size_t t = 0; t < length; t++) padded[t] = 0.0f;
        for (size_t t = 0; t < m->samples; t++) padded[EC_MICRO_REACH + t] = window[t * m->channels + c] / m->scale;
    }
}

/* Adds what one channel contributes to a block of outputs; `x` is where the first tap of the first output is. */
static void add_channel_f32(const float *weights, const float *x, size_t dilation, float *outputs) {
    float a = outputs[0], b = outputs[1], c = outputs[2], d = outputs[3];
    for (uint32_t j = 0; j < EC_MICRO_TAPS; j++, x += dilation) {
        const float weight = weights[j];
        a += weight * x[0];
        b += weight * x[1];
        c += weight * x[2];
        d += weight * x[3];
    }
    outputs[0] = a, outputs[1] = b, outputs[2] = c, outputs[3] = d;
}

/* Share of positive outputs, maximum and mean absolute output of one kernel. */
static void kernel_f32(const ec_micro *m, const float *padded, ec_micro_kernel kernel, float *features) {
    const size_t length = ec_micro_padded_samples(m);
    const float *weights = (const float *)m->weights + (size_t)kernel.tap * EC_MICRO_TAPS;
    const float bias = ((const float *)m->biases)[kernel.index];
    uint32_t positive = 0;
    float largest = -FLT_MAX, size = 0.0f;
    for (uint32_t t = 0; t < m->samples; t += EC_MICRO_BLOCK) {
        const uint32_t count = m->samples - t < EC_MICRO_BLOCK ? m->samples - t : EC_MICRO_BLOCK;
        float outputs[EC_MICRO_BLOCK] = {bias, bias, bias, bias};
        for (uint32_t s = 0; s < kernel.seen; s++) {
            const float *channel = padded + m->tap_channels[kernel.tap + s] * length;
            const float *x = channel + EC_MICRO_REACH + t - 3 * kernel.dilation;
            add_channel_f32(weights + s * EC_MICRO_TAPS, x, kernel.dilation, outputs);
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
    if (!ec_micro_usable(m, EC_FLOAT32, window, scratch, scratch_bytes, embedding)) return EC_BAD_ARGUMENT;
    means = m->means, factors = m->factors, head = m->head;
    padded = scores + m->width;
    spread_f32(m, window, padded);
    for (ec_micro_kernel k = ec_micro_first_kernel(m); k.index < m->width / 3u; k = ec_micro_next_kernel(m, k))
        kernel_f32(m, padded, k, scores + 3 * k.index);
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

