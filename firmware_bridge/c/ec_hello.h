/* HELLO: how a stream registers itself with the host (SPEC.md, "HELLO"). */
#ifndef EC_HELLO_H
#define EC_HELLO_H

#include <stddef.h>
#include <stdint.h>

#include "ec_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EC_HELLO_MAX_BYTES 512u

/* Texts are UTF-8, of characters that can be printed. */
struct ec_hello {
    const char *name;     /* 1 to 32 of a-z 0-9 _, a letter first; no reserved word of SPEC.md; none twice */
    const char *unit;     /* 1 to 64 characters: unit of raw value x scale */
    double scale;         /* finite, > 0 */
    double rate;          /* samples per second, > 0, at most 1,000,000 */
    uint16_t channels;    /* 1 to 1024; times the size of a value at most 4096 */
    uint8_t dtype;        /* enum ec_dtype */
    const char *firmware; /* name and version, at most 64 characters */
    const char *kind;     /* "sensor", "embedding" or "label"; NULL: "sensor" */
    uint16_t max_payload; /* 64 to 4096: longest payload that this firmware takes */
};

/* Writes the payload of a HELLO frame into `out` and its length into `size`. EC_BAD_ARGUMENT: a field outside its
 * range; EC_TOO_SMALL: it has more than `capacity` bytes, or than EC_HELLO_MAX_BYTES. */
enum ec_status ec_hello_encode(const struct ec_hello *hello, uint8_t *out, size_t capacity, size_t *size);

#ifdef __cplusplus
}
#endif

#endif
