/* A ring buffer of samples between one producer (an interrupt) and one consumer (the main loop), without locks: each
 * side writes its own index only, and publishes it after what it stands for. Samples are whole, or dropped and counted.
 */
#ifndef EC_RING_H
#define EC_RING_H

#include <stddef.h>
#include <stdint.h>

#include "ec_status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a buffer that holds `samples` samples of `bytes` bytes: each with 8 bytes of time, and one place that stays
 * free. */
#define EC_RING_BYTES(samples, bytes) (((samples) + 1u) * ((bytes) + 8u))

struct ec_ring {
    uint8_t *buffer;
    uint32_t places; /* one more than it holds: head == tail means empty */
    uint32_t sample_bytes;
    uint32_t head;    /* place of the next sample to come; the producer's */
    uint32_t tail;    /* place of the oldest sample; the consumer's */
    uint32_t dropped; /* samples, because it was full; the producer's */
};

/* EC_BAD_ARGUMENT: no sample of 1 to 4096 bytes fits into `buffer`. */
enum ec_status ec_ring_init(struct ec_ring *ring, uint8_t *buffer, size_t bytes, size_t sample_bytes);

/* Producer: copies one sample, taken at `time_us` of the device clock. EC_FULL: it was dropped. */
enum ec_status ec_ring_push(struct ec_ring *ring, const void *sample, uint64_t time_us);

/* Consumer: how many samples there are. */
uint32_t ec_ring_count(const struct ec_ring *ring);

/* Consumer: sample `index` from the oldest, 0 to count - 1, valid until it is released; its time goes to `time_us`. */
const uint8_t *ec_ring_at(const struct ec_ring *ring, uint32_t index, uint64_t *time_us);

/* Consumer: gives the places of the `count` oldest samples back; at most ec_ring_count(). */
void ec_ring_release(struct ec_ring *ring, uint32_t count);

/* Either: samples dropped since the beginning, wrapping at 2^32. */
uint32_t ec_ring_dropped(const struct ec_ring *ring);

#ifdef __cplusplus
}
#endif

#endif
