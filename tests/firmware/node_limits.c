/* What ec_node_init() and the others refuse, and that what they take works to the last byte of the caller's buffers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ec_node.h"

#define DEMAND(holds)                                                                                                  \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            printf("line %d: not " #holds "\n", __LINE__);                                                             \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t now;
static size_t line_room, line_bytes;
static struct ec_decoder host; /* at the end of the line */

static uint64_t clock_us(void *user) {
    (void)user;
    return now;
}

static size_t write_line(void *user, const uint8_t *bytes, size_t count) {
    size_t taken = count < line_room ? count : line_room;
    struct ec_frame frame;

    (void)user;
    line_room -= taken;
    for (size_t left = taken; ec_decode(&host, &bytes, &left, &frame) == EC_OK;)
        ;
    line_bytes += taken;
    return taken;
}

static const struct ec_hello gyro = {"gyro", "rad/s", 1, 100, 3, EC_DTYPE_INT16, "test 1", NULL, 0};
static uint8_t rings[2][EC_RING_BYTES(10, 6)];
static struct ec_stream streams[2];

static struct ec_node_config good(void) {
    static uint8_t transmit[EC_TRANSMIT_BYTES(160)], receive[EC_PACKET_BYTES(64)];
    struct ec_hello other = gyro;

    other.name = "acc";
    DEMAND(ec_stream_init(&streams[0], &gyro, rings[0], sizeof rings[0]) == EC_OK);
    DEMAND(ec_stream_init(&streams[1], &other, rings[1], sizeof rings[1]) == EC_OK);
    return (struct ec_node_config){write_line,      clock_us, NULL,          1, 50000, streams, 2, NULL, transmit,
                                   sizeof transmit, receive,  sizeof receive};
}

static void refuses(void) {
    struct ec_node_config c = good();
    struct ec_node node;
    struct ec_stream stream;
    struct ec_hello hello = gyro;

    DEMAND(ec_node_init(&node, &c) == EC_OK);
    DEMAND(streams[0].hello.max_payload == 64 && streams[0].most == 26);
    c.boot = 0;
    DEMAND(ec_node_init(&node, &c) == EC_BAD_ARGUMENT);
    c = good(), c.delay_us = 2000001;
    DEMAND(ec_node_init(&node, &c) == EC_BAD_ARGUMENT);
    c = good(), c.receive_bytes--;
    DEMAND(ec_node_init(&node, &c) == EC_BAD_ARGUMENT);
    c = good(), c.transmit_bytes = EC_TRANSMIT_BYTES(90); /* a HELLO does not fit */
    DEMAND(ec_node_init(&node, &c) == EC_TOO_SMALL);
    c.transmit_bytes = 1;
    DEMAND(ec_node_init(&node, &c) == EC_TOO_SMALL);
    c = good(), streams[1].hello.name = "gyro";
    DEMAND(ec_node_init(&node, &c) == EC_BAD_ARGUMENT);
    hello.scale = 0;
    DEMAND(ec_stream_init(&stream, &hello, rings[0], sizeof rings[0]) == EC_BAD_ARGUMENT);
    DEMAND(ec_stream_init(&stream, &gyro, rings[0], EC_RING_BYTES(1, 6) - 1) == EC_BAD_ARGUMENT);
}

/* Every length of a ring holds exactly that many samples, and says so when one more comes. */
static void rings_hold_what_they_say(void) {
    static uint8_t buffer[EC_RING_BYTES(9, 3)];
    struct ec_ring ring;
    uint64_t time;

    for (uint32_t places = 1; places <= 9; places++) {
        DEMAND(ec_ring_init(&ring, buffer, EC_RING_BYTES(places, 3), 3) == EC_OK);
        for (uint32_t round = 0, next = 0; round < 25; round++) {
            for (uint32_t i = 0; i < places; i++) DEMAND(ec_ring_push(&ring, "abc", next++) == EC_OK);
            DEMAND(ec_ring_push(&ring, "abc", 0) == EC_FULL && ec_ring_dropped(&ring) == round + 1);
            DEMAND(ec_ring_count(&ring) == places);
            DEMAND(memcmp(ec_ring_at(&ring, places - 1, &time), "abc", 3) == 0 && time == next - 1);
            ec_ring_release(&ring, places);
            DEMAND(ec_ring_count(&ring) == 0);
        }
    }
}

/* A line that takes one byte at a time, or none: nothing is lost, and poll never waits. */
static void slow_line(void) {
    struct ec_node_config c = good();
    struct ec_node node;
    int16_t sample[3] = {1, 2, 3};

    static uint8_t packet[EC_PACKET_BYTES(EC_MAX_PAYLOAD)];
    DEMAND(ec_decoder_init(&host, packet, sizeof packet) == EC_OK);
    now = 1;
    DEMAND(ec_node_init(&node, &c) == EC_OK);
    DEMAND(ec_stream_push(&streams[0], sample, now) == EC_OK);
    DEMAND(ec_node_poll(&node) == EC_OK); /* the first HELLO waits in the buffer */
    DEMAND(ec_node_poll(&node) == EC_NOT_YET && line_bytes == 0);
    for (int i = 0; i < 2000; i++) {
        line_room = 1;
        now += 100;
        (void)ec_node_poll(&node);
    }
    /* Two HELLOs, one frame of one sample: its 50 ms have passed. */
    DEMAND(streams[0].sequence == 2 && streams[1].sequence == 1 && ec_ring_count(&streams[0].ring) == 0);
    DEMAND(host.counters.frames == 3 && ec_unusable(&host.counters) == 0);
}

int main(void) {
    refuses();
    rings_hold_what_they_say();
    slow_line();
    return 0;
}
