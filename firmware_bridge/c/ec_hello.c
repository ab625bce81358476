#include "ec_hello.h"

#include <float.h>
#include <stdbool.h>
#include <string.h>

#include "ec_frame.h"

#define MAX_NAME 32u
#define MAX_TEXT 64u

/* ---- CBOR (RFC 8949): a map of texts, unsigned integers and doubles is all that HELLO needs. ---- */

enum major { UINT = 0, TEXT = 3, MAP = 5 };

struct writer {
    uint8_t *out;
    size_t capacity, used;
    bool full;
};

static void put(struct writer *w, const void *bytes, size_t count) {
    if (count > w->capacity - w->used) {
        w->full = true;
        return;
    }
    memcpy(w->out + w->used, bytes, count);
    w->used += count;
}

/* Shortest form; nothing in a HELLO is above 65535. */
static void put_head(struct writer *w, enum major major, size_t value) {
    uint8_t top = (uint8_t)(major << 5);
    uint8_t wide[3] = {(uint8_t)(top | 25), (uint8_t)(value >> 8), (uint8_t)value};
    uint8_t byte[2] = {(uint8_t)(top | 24), (uint8_t)value};
    uint8_t direct = (uint8_t)(top | value);

    if (value > 255)
        put(w, wide, sizeof wide);
    else if (value > 23)
        put(w, byte, sizeof byte);
    else
        put(w, &direct, 1);
}

static void put_text(struct writer *w, const char *text) {
    put_head(w, TEXT, strlen(text));
    put(w, text, strlen(text));
}

static void put_double(struct writer *w, double value) {
    uint8_t raw[9] = {0xFB};
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++) /* CBOR is big-endian */
        raw[1 + i] = (uint8_t)(bits >> (56 - 8 * i));
    put(w, raw, sizeof raw);
}

/* ---- What SPEC.md allows: a host would refuse anything else, long after the firmware was flashed. ---- */

/* Whether a UTF-8 text has `least` to MAX_TEXT characters, which are bytes that do not continue one, and no control
 * ones. */
static bool text_allowed(const char *text, size_t least) {
    size_t count = 0;

    for (; *text && count <= MAX_TEXT; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte < 0x20 || byte == 0x7F) return false;
        count += (byte & 0xC0) != 0x80;
    }
    return count >= least && count <= MAX_TEXT;
}

static bool one_of(const char *text, const char *const *words) {
    while (*words && strcmp(text, *words) != 0) words++;
    return *words != NULL;
}

static bool name_allowed(const char *name) {
    static const char *const reserved[] = {"clock", "group", "label", "text", "time", "valid", NULL};
    size_t length = strlen(name);

    return length >= 1 && length <= MAX_NAME && name[0] >= 'a' && name[0] <= 'z' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == length && !one_of(name, reserved);
}

static bool kind_allowed(const char *kind) {
    static const char *const kinds[] = {"sensor", "embedding", "label", NULL};

    return one_of(kind, kinds);
}

static const char *kind_of(const struct ec_hello *hello) {
    return hello->kind ? hello->kind : "sensor";
}

/* Comparisons are written so that NaN fails them. FLT_MAX, because a host computes with float32. */
static bool allowed(const struct ec_hello *h) {
    size_t sample = h->channels * ec_dtype_bytes(h->dtype);

    return h->name && h->unit && h->firmware && name_allowed(h->name) && text_allowed(h->unit, 1) &&
           text_allowed(h->firmware, 0) && kind_allowed(kind_of(h)) && h->scale > 0 && h->scale <= (double)FLT_MAX &&
           h->rate > 0 && h->rate <= 1e6 && h->channels >= 1 && h->channels <= 1024 && sample >= 1 &&
           sample <= EC_MAX_PAYLOAD && h->max_payload >= 64 && h->max_payload <= EC_MAX_PAYLOAD;
}

enum ec_status ec_hello_encode(const struct ec_hello *hello, uint8_t *out, size_t capacity, size_t *size) {
    struct writer w = {out, capacity < EC_HELLO_MAX_BYTES ? capacity : EC_HELLO_MAX_BYTES, 0, false};

    if (!allowed(hello)) return EC_BAD_ARGUMENT;
    put_head(&w, MAP, 9);
    put_text(&w, "name");
    put_text(&w, hello->name);
    put_text(&w, "unit");
    put_text(&w, hello->unit);
    put_text(&w, "scale");
    put_double(&w, hello->scale);
    put_text(&w, "rate");
    put_double(&w, hello->rate);
    put_text(&w, "channels");
    put_head(&w, UINT, hello->channels);
    put_text(&w, "dtype");
    put_head(&w, UINT, hello->dtype);
    put_text(&w, "firmware");
    put_text(&w, hello->firmware);
    put_text(&w, "kind");
    put_text(&w, kind_of(hello));
    put_text(&w, "max_payload");
    put_head(&w, UINT, hello->max_payload);
    *size = w.used;
    return w.full ? EC_TOO_SMALL : EC_OK;
}
