/* A sensor on an MPS2 board: plays the windows of a header file at their rate. Built with MICRO=1 it takes a micro
 * model, embeds the same windows with it, and sends the embeddings as a stream of their own. */
#include <string.h>

#include "board.h"
#include "ec_node.h"
#ifdef EC_MICRO
#include "embedding.h"
#endif
#ifndef DATA_HEADER
#define DATA_HEADER "example_data.h"
#endif
#include DATA_HEADER

#define PAYLOAD 1056u /* an embedding of 256 float32 fits, and a chunk of 1040 bytes */
#define RING_SAMPLES 512u
#define SAMPLES ((uint32_t)DATA_WINDOWS * DATA_SAMPLES)
#define SAMPLE_BYTES (sizeof data[0] * DATA_CHANNELS)

static uint8_t sample_ring[EC_RING_BYTES(RING_SAMPLES, SAMPLE_BYTES)];
static uint8_t transmit[EC_TRANSMIT_BYTES(PAYLOAD)], receive[EC_PACKET_BYTES(PAYLOAD)];
static struct ec_stream streams[2];
static struct ec_node node;
static uint64_t started_us; /* when the first sample was taken */

static uint64_t clock_us(void *user) {
    (void)user;
    return board_clock_us();
}

static const uint64_t rate_mhz = (uint64_t)((double)DATA_RATE * 1000);

/* From the interrupt: the sample that is due now, with the time at which it was due; after the last, the sensor is silent. One whose whole
 * period has passed (an emulator may stand still meanwhile) is left out, as a sensor does: the world does not wait. */
void board_sample(void) {
    static uint32_t next;
    uint64_t now_us = board_clock_us();

    if (next == 0) started_us = now_us;
    uint32_t due = (uint32_t)((now_us - started_us) * rate_mhz / 1000000000u);
    if (due > next) next = due;
    if (next >= SAMPLES) return; /* the interrupt goes on: it wakes the main loop, which has HELLO and STATUS to send */
    (void)ec_stream_push(&streams[0], data + (size_t)next * DATA_CHANNELS, started_us + next * UINT64_C(1000000000) / rate_mhz);
    next++;
}

static struct ec_node_config configuration(void) {
    return (struct ec_node_config){
        .write = board_write,
        .clock_us = clock_us,
        .boot = board_boot(),
        .delay_us = 50000,
        .streams = streams,
        .stream_count = 1,
        .transmit = transmit,
        .transmit_bytes = sizeof transmit,
        .receive = receive,
        .receive_bytes = sizeof receive,
    };
}

static enum ec_status start_sensor(void) {
    const struct ec_hello hello = {DATA_NAME,  DATA_UNIT,   DATA_SCALE, DATA_RATE, DATA_CHANNELS,
                                   DATA_DTYPE, "ec_mps2 1", "sensor",   0};

    return ec_stream_init(&streams[0], &hello, sample_ring, sizeof sample_ring);
}

#ifdef EC_MICRO

static uint8_t embedding_ring[EC_RING_BYTES(3, EMBEDDING_DIMENSIONS * 4)];
static struct ec_slots slots;
static struct window_shape shape = {DATA_NAME, DATA_SAMPLES, DATA_CHANNELS};

static enum ec_status start_embedding(struct ec_node_config *config) {
    const struct ec_hello hello = {
        DATA_NAME "_embedding",
        "1",
        1,
        (double)DATA_RATE / DATA_SAMPLES,
        EMBEDDING_DIMENSIONS,
        EC_DTYPE_FLOAT32,
        "ec_mps2 1",
        "embedding",
        0,
    };
    struct ec_slots_config slots_config;

    board_flash(&slots_config);
    slots_config.validate = embedding_validate;
    slots_config.user = &shape;
    config->stream_count = 2;
    config->slots = &slots;
    enum ec_status status = ec_slots_open(&slots, &slots_config);
    return status ? status : ec_stream_init(&streams[1], &hello, embedding_ring, sizeof embedding_ring);
}

/* Embeds one more window, if there is a model, and room; begins anew with every new model. False where there is nothing
 * to do. */
static bool embed_next(void) {
    static float window[DATA_SAMPLES * DATA_CHANNELS], embedding[EMBEDDING_DIMENSIONS];
    static uint8_t model_id[EC_ID_BYTES];
    static uint32_t next;
    const struct ec_ring *ring = &streams[1].ring;

    if (slots.active == EC_NO_SLOT) return false;
    if (memcmp(model_id, slots.model.id, EC_ID_BYTES)) {
        memcpy(model_id, slots.model.id, EC_ID_BYTES);
        next = 0;
    }
    if (next == DATA_WINDOWS || ec_ring_count(ring) == ring->places - 1) return false;
    for (size_t i = 0; i < sizeof window / sizeof window[0]; i++)
        window[i] = (float)data[next * (sizeof window / sizeof window[0]) + i] * (float)DATA_SCALE;
    /* The time of the window's first sample, in the one pass that the sensor plays. */
    if (embed(&slots, window, embedding) == EC_OK)
        (void)ec_stream_push(&streams[1], embedding,
                             started_us + (uint64_t)((double)next * DATA_SAMPLES * 1e6 / DATA_RATE));
    next++;
    return true;
}

#else

static bool embed_next(void) {
    return false;
}

#endif

static enum ec_status start(void) {
    struct ec_node_config config = configuration();
    enum ec_status status = start_sensor();

#ifdef EC_MICRO
    status = status ? status : start_embedding(&config);
#endif
    return status ? status : ec_node_init(&node, &config);
}

int main(void) {
    uint8_t bytes[256];
    uint64_t received_us;
    size_t count;

    board_start();
    if (start()) return 1;
    board_sample_every((uint32_t)(BOARD_HZ / (double)DATA_RATE));
    for (;;) {
        while ((count = board_read(bytes, sizeof bytes, &received_us)) != 0)
            ec_node_receive(&node, bytes, count, received_us);
        /* Embedding takes long: only when nothing is to be sent. */
        if (ec_node_poll(&node) == EC_NOT_YET && !embed_next()) board_wait();
    }
}
