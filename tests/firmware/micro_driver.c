/* Drives the micro model from tests. Both commands read standard input to its end:
 *
 *   micro_driver embed BLOB   windows of T x C floats; writes per window the embedding, the label (u16) and its cosine (f32)
 *   micro_driver open         blobs, each after its size (u32); writes per blob its status (u8), and uses those that open
 *
 * Every buffer has exactly the size that the library asks for, so that a sanitizer sees the first byte beyond.
 */
#include "ec_micro.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(size_t size) {
    void *memory = malloc(size > 0 ? size : 1);
    if (memory == NULL) abort();
    return memory;
}

static void write_all(const void *data, size_t size) {
    if (fwrite(data, 1, size, stdout) != size) abort();
}

/* Embeds one window of floats, and writes what came out; returns the first status that is not EC_OK. */
static ec_status embed(const ec_micro *m, const float *window, void *scratch) {
    const size_t values = (size_t)m->samples * m->channels, bytes = ec_micro_scratch_bytes(m);
    const size_t size = m->dimensions * (m->precision == EC_INT8 ? sizeof(int16_t) : sizeof(float));
    void *embedding = need(size);
    uint16_t label = 0;
    float cosine = 0;
    ec_status status;
    if (m->precision == EC_INT8) {
        int16_t *samples = need(values * sizeof *samples);
        for (size_t i = 0; i < values; i++) samples[i] = ec_micro_quantise(m, window[i]);
        status = ec_micro_embed_i16(m, samples, scratch, bytes, embedding);
        if (status == EC_OK && m->labels > 0) status = ec_micro_nearest_i16(m, embedding, &label, &cosine);
        free(samples);
    } else {
        status = ec_micro_embed_f32(m, window, scratch, bytes, embedding);
        if (status == EC_OK && m->labels > 0) status = ec_micro_nearest_f32(m, embedding, &label, &cosine);
    }
    if (status == EC_OK) {
        write_all(embedding, size);
        write_all(&label, sizeof label);
        write_all(&cosine, sizeof cosine);
    }
    free(embedding);
    return status;
}

static int embed_stream(const char *path) {
    FILE *file = fopen(path, "rb");
    size_t size, values;
    uint8_t *blob;
    float *window;
    void *scratch;
    ec_micro model;
    ec_status status;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) return 100;
    size = (size_t)ftell(file);
    rewind(file);
    blob = need(size);
    if (fread(blob, 1, size, file) != size) return 100;
    fclose(file);
    status = ec_micro_open(blob, size, &model);
    if (status != EC_OK) return (int)status;
    values = (size_t)model.samples * model.channels;
    window = need(values * sizeof *window);
    scratch = need(ec_micro_scratch_bytes(&model));
    while (status == EC_OK && fread(window, sizeof *window, values, stdin) == values)
        status = embed(&model, window, scratch);
    free(scratch);
    free(window);
    free(blob);
    return (int)status;
}

/* Uses an opened model in every way, so that a limit that was not checked shows. */
static void use(const ec_micro *m) {
    const size_t values = (size_t)m->samples * m->channels, bytes = ec_micro_scratch_bytes(m);
    void *embedding = need(m->dimensions * sizeof(float)), *scratch = need(bytes);
    uint16_t label;
    float cosine;
    size_t letters = strlen(m->modality);
    if (m->precision == EC_INT8) {
        int16_t *samples = need(values * sizeof *samples);
        for (size_t i = 0; i < values; i++) samples[i] = (int16_t)(i % 3 == 0 ? -32768 : 32767);
        if (ec_micro_embed_i16(m, samples, scratch, bytes, embedding) != EC_OK) abort();
        if (m->labels > 0 && ec_micro_nearest_i16(m, embedding, &label, &cosine) != EC_OK) abort();
        free(samples);
    } else {
        float *window = need(values * sizeof *window);
        ec_status status;
        for (size_t i = 0; i < values; i++) window[i] = i % 3 == 0 ? -1.0f : 1e6f;
        status = ec_micro_embed_f32(m, window, scratch, bytes, embedding);
        if (status != EC_OK && status != EC_BAD_VALUE) abort();
        if (m->labels > 0 && ec_micro_nearest_f32(m, embedding, &label, &cosine) != EC_OK && status == EC_OK) abort();
        free(window);
    }
    for (uint16_t l = 0; l < m->labels; l++) letters += strlen(ec_micro_label(m, l));
    if (ec_micro_label(m, m->labels) != NULL || letters == 0) abort();
    free(scratch);
    free(embedding);
}

static int open_stream(void) {
    uint32_t size;
    while (fread(&size, sizeof size, 1, stdin) == 1) {
        uint8_t *blob = need(size);
        ec_micro model;
        uint8_t status;
        if (fread(blob, 1, size, stdin) != size) return 100;
        status = (uint8_t)ec_micro_open(blob, size, &model);
        if (status == EC_OK) use(&model);
        write_all(&status, 1);
        free(blob);
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count == 3 && strcmp(arguments[1], "embed") == 0) return embed_stream(arguments[2]);
    if (count == 2 && strcmp(arguments[1], "open") == 0) return open_stream();
    fprintf(stderr, "usage: micro_driver embed BLOB | open\n");
    return 101;
}
