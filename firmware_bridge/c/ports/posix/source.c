#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "posix.h"

enum key { NAME, UNIT, SCALE, RATE, CHANNELS, DTYPE, KIND, DATA, COUNT };

static const char *const dtypes[] = {"none", "int8", "uint8", "int16", "uint16", "int32", "float32"};

static uint8_t dtype_of(const char *name) {
    for (uint8_t i = EC_DTYPE_INT8; i <= EC_DTYPE_FLOAT32; i++)
        if (strcmp(name, dtypes[i]) == 0) return i;
    fail("%s is no dtype: int8, uint8, int16, uint16, int32, float32", name);
    return 0;
}

static void set(struct source *s, enum key key, char *value) {
    switch (key) {
    case NAME: s->hello.name = value; break;
    case UNIT: s->hello.unit = value; break;
    case SCALE: s->hello.scale = strtod(value, NULL); break;
    case RATE: s->hello.rate = strtod(value, NULL); break;
    case CHANNELS: s->hello.channels = (uint16_t)strtoul(value, NULL, 10); break;
    case DTYPE: s->hello.dtype = dtype_of(value); break;
    case KIND: s->hello.kind = value; break;
    case DATA: s->data = value; break;
    case COUNT: s->count = strtoull(value, NULL, 10); break;
    }
}

static void read_file(struct source *s) {
    FILE *file = fopen(s->data, "rb");

    if (!file || fseek(file, 0, SEEK_END)) fail("%s cannot be read", s->data);
    long size = ftell(file);
    rewind(file);
    if (size < 0 || (size_t)size < s->sample_bytes || (size_t)size % s->sample_bytes)
        fail("%s: expected whole samples of %zu bytes, got %ld bytes", s->data, s->sample_bytes, size);
    s->samples = malloc((size_t)size);
    if (!s->samples || fread(s->samples, 1, (size_t)size, file) != (size_t)size) fail("%s cannot be read", s->data);
    fclose(file);
    s->count = (uint64_t)size / s->sample_bytes;
}

void source_parse(struct source *s, char *text) {
    static char *const keys[] = {"name", "unit", "scale", "rate", "channels", "dtype", "kind", "data", "count", NULL};
    char *value;

    *s = (struct source){.hello = {NULL, "1", 1, 50, 1, EC_DTYPE_FLOAT32, "ec_posix 1", "sensor", 0},
                         .count = UINT64_MAX};
    while (*text) {
        int key = getsubopt(&text, keys, &value);
        if (key < 0 || !value)
            fail("--stream: expected KEY=VALUE of name, unit, scale, rate, channels, dtype, kind, data, count; got %s",
                 value ? value : "nothing");
        set(s, (enum key)key, value);
    }
    s->sample_bytes = s->hello.channels * ec_dtype_bytes(s->hello.dtype);
    if (!s->hello.name || s->sample_bytes == 0 || !(s->hello.rate > 0))
        fail("--stream: expected a name, channels and a rate above 0");
    if (s->data) read_file(s);
}

uint64_t source_time_us(const struct source *s) {
    return s->next >= s->count && !(s->samples && s->loop) ? UINT64_MAX
                                                           : (uint64_t)((double)s->next * 1e6 / s->hello.rate);
}

/* One value of a sine of 1 Hz and amplitude 1 (100 of integers, so that all dtypes have it; 100 above zero where they
 * cannot be negative). */
static void put_sine(const struct source *s, uint16_t channel, uint8_t *at) {
    double value = sin(6.283185307179586 * ((double)s->next / s->hello.rate + (double)channel / s->hello.channels));
    bool positive = s->hello.dtype == EC_DTYPE_UINT8 || s->hello.dtype == EC_DTYPE_UINT16;
    int32_t whole = (int32_t)lround(100 * value) + (positive ? 100 : 0);
    float single = (float)value;

    if (s->hello.dtype == EC_DTYPE_FLOAT32)
        memcpy(at, &single, sizeof single);
    else
        memcpy(at, &whole, ec_dtype_bytes(s->hello.dtype)); /* little-endian, as every computer that this runs on */
}

void source_take(struct source *s, uint8_t *sample) {
    if (s->samples) {
        memcpy(sample, s->samples + s->next % s->count * s->sample_bytes, s->sample_bytes);
    } else {
        for (uint16_t i = 0; i < s->hello.channels; i++) put_sine(s, i, sample + i * ec_dtype_bytes(s->hello.dtype));
    }
    s->next++;
}
