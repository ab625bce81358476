/* A producer in a thread of its own against a consumer: every sample comes out once, whole and in order, or is counted
 * as dropped. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ec_ring.h"

#define SAMPLES 400000u
#define WORDS 6u /* of a sample, all the same number: a torn sample has two */

static struct ec_ring ring;

static void *produce(void *user) {
    uint32_t sample[WORDS];

    (void)user;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        for (uint32_t w = 0; w < WORDS; w++) sample[w] = i;
        (void)ec_ring_push(&ring, sample, UINT64_C(0x100000000) + i); /* more than 32 bits of time */
    }
    return NULL;
}

/* Takes what is there; returns how many samples that were. `next` is the least number that may come. */
static uint32_t consume(uint32_t *next) {
    uint32_t count = ec_ring_count(&ring), sample[WORDS];
    uint64_t time;

    for (uint32_t i = 0; i < count; i++) {
        memcpy(sample, ec_ring_at(&ring, i, &time), sizeof sample);
        for (uint32_t w = 1; w < WORDS; w++)
            if (sample[w] != sample[0]) exit((printf("torn sample %u\n", sample[0]), 1));
        if (sample[0] < *next || time != UINT64_C(0x100000000) + sample[0])
            exit((printf("sample %u at %llu after %u\n", sample[0], (unsigned long long)time, *next), 1));
        *next = sample[0] + 1;
    }
    ec_ring_release(&ring, count);
    return count;
}

int main(void) {
    static uint8_t buffer[EC_RING_BYTES(37, WORDS * 4)];
    uint32_t taken = 0, next = 0;
    pthread_t thread;

    if (ec_ring_init(&ring, buffer, sizeof buffer, WORDS * 4) || pthread_create(&thread, NULL, produce, NULL)) return 2;
    while (taken + ec_ring_dropped(&ring) < SAMPLES) taken += consume(&next);
    pthread_join(thread, NULL);
    printf("{\"taken\": %u, \"dropped\": %u}\n", taken, ec_ring_dropped(&ring));
    return ec_ring_count(&ring) != 0 || taken == 0 || taken + ec_ring_dropped(&ring) != SAMPLES;
}
