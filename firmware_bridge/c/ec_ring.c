#include "ec_ring.h"

#include <string.h>

#include "ec_bytes.h"

#define TIME_BYTES                                                                                                     \
    8u /* all of it: while a link is down, samples may lie here for longer than 32 bits of microseconds */

/* C99 has no atomics; gcc, clang and armclang have these. On a Cortex-M they are a load or store and a barrier. For
 * another compiler, define both: acquire keeps later accesses behind the load, release keeps earlier ones before the
 * store. */
#ifndef EC_LOAD_ACQUIRE
#define EC_LOAD_ACQUIRE(from) __atomic_load_n(from, __ATOMIC_ACQUIRE)
#define EC_STORE_RELEASE(to, value) __atomic_store_n(to, value, __ATOMIC_RELEASE)
#endif

enum ec_status ec_ring_init(struct ec_ring *ring, uint8_t *buffer, size_t bytes, size_t sample_bytes) {
    if (sample_bytes < 1 || sample_bytes > 4096 || bytes < EC_RING_BYTES(1, sample_bytes) || bytes > UINT32_MAX / 2)
        return EC_BAD_ARGUMENT;
    *ring = (struct ec_ring){
        .buffer = buffer,
        .places = (uint32_t)(bytes / (sample_bytes + TIME_BYTES)),
        .sample_bytes = (uint32_t)sample_bytes,
    };
    return EC_OK;
}

/* `place` and `step` are below `places`, itself below 2^31: the sum cannot wrap. */
static uint32_t advance(const struct ec_ring *ring, uint32_t place, uint32_t step) {
    place += step;
    return place < ring->places ? place : place - ring->places;
}

static uint8_t *place_at(const struct ec_ring *ring, uint32_t place) {
    return ring->buffer + (size_t)place * (ring->sample_bytes + TIME_BYTES);
}

enum ec_status ec_ring_push(struct ec_ring *ring, const void *sample, uint64_t time_us) {
    uint32_t next = advance(ring, ring->head, 1);
    uint8_t *place = place_at(ring, ring->head);

    if (next == EC_LOAD_ACQUIRE(&ring->tail)) {
        EC_STORE_RELEASE(&ring->dropped, ring->dropped + 1);
        return EC_FULL;
    }
    ec_put64(place, time_us);
    memcpy(place + TIME_BYTES, sample, ring->sample_bytes);
    EC_STORE_RELEASE(&ring->head, next); /* last: the consumer may read the place from here on */
    return EC_OK;
}

uint32_t ec_ring_count(const struct ec_ring *ring) {
    uint32_t head = EC_LOAD_ACQUIRE(&ring->head);
    return head >= ring->tail ? head - ring->tail : head + ring->places - ring->tail;
}

const uint8_t *ec_ring_at(const struct ec_ring *ring, uint32_t index, uint64_t *time_us) {
    const uint8_t *place = place_at(ring, advance(ring, ring->tail, index));
    *time_us = ec_get64(place);
    return place + TIME_BYTES;
}

void ec_ring_release(struct ec_ring *ring, uint32_t count) {
    EC_STORE_RELEASE(&ring->tail,
                     advance(ring, ring->tail, count)); /* the producer may write the places from here on */
}

uint32_t ec_ring_dropped(const struct ec_ring *ring) {
    return EC_LOAD_ACQUIRE(&ring->dropped);
}
