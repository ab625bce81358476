/* Opening a micro model: checks every limit that the arithmetic of ec_micro_f32.c and ec_micro_i16.c rests on. */
#include "ec_micro_internal.h"

#include <string.h>

#include "ec_bytes.h"
#include "ec_crc.h"

#define HEADER 108u
#define MAX_BYTES (1ul << 24)

static int little_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 1;
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
    if (ec_get16(blob + 4) != 1 || blob[6] > 1 || blob[7] != 0 || ec_get32(blob + 8) != size) return EC_BAD_FORMAT;
    m->precision = blob[6] == 1 ? EC_INT8 : EC_FLOAT32;
    m->channels = ec_get16(blob + 12);
    m->samples = ec_get16(blob + 14);
    m->width = ec_get16(blob + 16);
    m->dimensions = ec_get16(blob + 18);
    m->taps = ec_get32(blob + 20);
    m->labels = ec_get16(blob + 24);
    m->name_bytes = ec_get32(blob + 28);
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

/* Returns the next section, `count` items of `bytes` each (at most 10 MB by the limits of the counts), and walks past
 * it and its padding. */
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
    m->weights = section(&w, m->taps * EC_MICRO_TAPS, whole ? 2 : 4);
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
        const uint16_t seen = ec_get16(kernel + 2);
        const uint8_t d = kernel[0];
        if ((d != 1 && d != 2 && d != 4 && d != 8) || kernel[1] != 0) return 0;
        if (!within(seen, 1, m->channels) || seen > m->taps - tap) return 0;
        if (m->precision == EC_INT8) {
            const int16_t *weights = (const int16_t *)m->weights + (size_t)tap * EC_MICRO_TAPS;
            const int32_t bias = ((const int32_t *)m->biases)[k];
            uint32_t sum = 0; /* <= 1024 * 7 * 2^15 < 2^28 */
            for (uint32_t i = 0; i < seen * EC_MICRO_TAPS; i++) {
                const int32_t weight = weights[i];
                sum += (uint32_t)(weight < 0 ? -weight : weight);
            }
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
    return all_finite(m->weights, (size_t)m->taps * EC_MICRO_TAPS) && all_finite(m->biases, m->width / 3u) &&
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
    if (ec_crc32(0, blob, size - 4) != ec_get32(blob + size - 4)) return EC_BAD_FORMAT;
    if (!place_sections(blob, size, model)) return EC_BAD_FORMAT;
    return valid_kernels(model) && valid_numbers(model) && valid_names(model) ? EC_OK : EC_BAD_FORMAT;
}

static ec_micro_kernel kernel_at(const ec_micro *m, uint32_t index, uint32_t tap) {
    ec_micro_kernel kernel = {index, 0, 0, tap};
    if (index < m->width / 3u) {
        kernel.dilation = m->kernels[4 * index];
        kernel.seen = ec_get16(m->kernels + 4 * index + 2);
    }
    return kernel;
}

ec_micro_kernel ec_micro_first_kernel(const ec_micro *m) { return kernel_at(m, 0, 0); }

ec_micro_kernel ec_micro_next_kernel(const ec_micro *m, ec_micro_kernel kernel) {
    return kernel_at(m, kernel.index + 1, kernel.tap + kernel.seen);
}

size_t ec_micro_padded_samples(const ec_micro *m) {
    return (size_t)m->samples + 2 * EC_MICRO_REACH + EC_MICRO_BLOCK;
}

size_t ec_micro_scratch_bytes(const ec_micro *m) {
    const size_t window = (size_t)m->channels * ec_micro_padded_samples(m);
    if (m->precision == EC_FLOAT32) return 4 * (m->width + window);
    return 4 * (size_t)m->dimensions + 2 * (m->width + window);
}

int ec_micro_usable(const ec_micro *m, ec_precision precision, const void *in, const void *scratch,
                    size_t scratch_bytes, const void *out) {
    return m != NULL && in != NULL && scratch != NULL && out != NULL && m->precision == precision &&
           (uintptr_t)scratch % 4 == 0 && scratch_bytes >= ec_micro_scratch_bytes(m);
}

const char *ec_micro_label(const ec_micro *m, uint16_t label) {
    if (m == NULL || label >= m->labels) return NULL;
    return m->names + (label == 0 ? 0 : m->name_ends[label - 1]);
}
