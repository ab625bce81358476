/* A stream: what one sensor sends, as the host is told of it, and its samples until they are sent. */
#ifndef EC_STREAM_H
#define EC_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ec_hello.h"
#include "ec_ring.h"
#include "ec_status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ec_stream {
    struct ec_hello hello; /* `max_payload` is set by ec_node_init() */
    struct ec_ring ring;
    uint32_t sequence; /* of the next frame; also how many were sent */
    uint64_t period_ns;
    uint16_t most; /* samples that a frame takes */
};

/* Prepares a stream whose samples wait in `buffer`, of EC_RING_BYTES(samples, channels x bytes of a value) bytes. What
 * `hello` points to must live as long as the stream. EC_BAD_ARGUMENT: `hello` says what SPEC.md does not allow, or not
 * one sample fits. */
enum ec_status ec_stream_init(struct ec_stream *stream, const struct ec_hello *hello, uint8_t *buffer, size_t bytes);

/* From an interrupt, or anywhere else, but always from the same place for one stream: hands over one sample, `channels`
 * values of `dtype`, little-endian, taken at `time_us` of the device clock. EC_FULL: it was dropped; STATUS will say
 * so. */
enum ec_status ec_stream_push(struct ec_stream *stream, const void *sample, uint64_t time_us);

/* Main loop: whether a frame should go: it would be full, or its first sample has waited for `delay_us`. */
bool ec_stream_due(const struct ec_stream *stream, uint64_t now_us, uint32_t delay_us);

/* Main loop: how many of the oldest samples, there being one at least, follow one another at the nominal rate, to half
 * a period. A frame has one time, so it must end where samples were dropped. */
uint16_t ec_stream_run(const struct ec_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
