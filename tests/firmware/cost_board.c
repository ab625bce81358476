/* Counts what the library costs on an emulated board: one line "NAME BYTES CYCLES" for each measurement on the UART,
 * then "end". Under `-icount shift=6` an instruction takes 64 ns and a cycle of the timer 40 ns. Built and read by
 * tests/bench/firmware_cost.py. */
#include <string.h>

#include "board.h"
#include "ec_crc.h"
#include "ec_node.h"

#define PAYLOAD 1020u /* 170 samples of 3 x int16 */
#define SAMPLES (PAYLOAD / 6u)

static uint8_t payload[PAYLOAD], encoded[EC_ENCODED_BYTES(PAYLOAD)], packet[EC_PACKET_BYTES(PAYLOAD)];
static uint8_t ring[EC_RING_BYTES(SAMPLES, 6)], transmit[EC_TRANSMIT_BYTES(PAYLOAD)];
static const struct ec_header header = {EC_TYPE_DATA, 1, EC_DTYPE_INT16, 7, 9, 123456789, SAMPLES, 3};
static size_t line_bytes;

void board_sample(void) {}

static void print(const char *text) {
    for (size_t left = strlen(text); left;) {
        size_t taken = board_write(NULL, (const uint8_t *)text, left);
        text += taken;
        left -= taken;
    }
}

static void print_number(uint32_t value) {
    char digits[12] = {0};
    int at = 11;

    do digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    print(" ");
    print(digits + at);
}

static void tell(const char *name, uint32_t bytes, uint32_t cycles) {
    print(name);
    print_number(bytes);
    print_number(cycles);
    print("\n");
}

static enum ec_status swallow(void *user, const uint8_t *bytes, size_t count) {
    (void)user;
    (void)bytes;
    (void)count;
    return EC_OK;
}

static size_t swallow_line(void *user, const uint8_t *bytes, size_t count) {
    (void)user;
    (void)bytes;
    line_bytes += count;
    return count;
}

static uint64_t still(void *user) {
    (void)user;
    return 1;
}

static size_t encode(const char *name, struct ec_encoder *encoder) {
    uint32_t start = board_cycles();

    (void)ec_encode_begin(encoder, &header, PAYLOAD);
    (void)ec_encode_payload(encoder, payload, PAYLOAD);
    (void)ec_encode_end(encoder);
    tell(name, EC_PACKET_BYTES(PAYLOAD), board_cycles() - start);
    return encoder->used;
}

static void decode(size_t count) {
    struct ec_decoder decoder;
    struct ec_frame frame;
    const uint8_t *bytes = encoded;
    uint32_t start, size = (uint32_t)count;

    (void)ec_decoder_init(&decoder, packet, sizeof packet);
    start = board_cycles();
    if (ec_decode(&decoder, &bytes, &count, &frame) == EC_OK) tell("decode", size, board_cycles() - start);
}

/* From the interrupt's push to the bytes for the line: a frame of 170 samples. */
static void node(void) {
    static struct ec_stream stream;
    static struct ec_node node;
    const struct ec_hello hello = {"gyro", "rad/s", 1, 1000, 3, EC_DTYPE_INT16, "cost", NULL, 0};
    const struct ec_node_config config = {swallow_line,    still,  NULL,         1, 0, &stream, 1, NULL, transmit,
                                          sizeof transmit, packet, sizeof packet};
    uint32_t start;

    if (ec_stream_init(&stream, &hello, ring, sizeof ring) || ec_node_init(&node, &config) || ec_node_poll(&node))
        return;
    start = board_cycles();
    for (uint32_t i = 0; i < SAMPLES; i++) (void)ec_stream_push(&stream, payload + 6 * i, 1000 * i);
    tell("push", PAYLOAD, board_cycles() - start);
    start = board_cycles();
    line_bytes = 0;
    if (ec_node_poll(&node) == EC_OK && ec_ring_count(&stream.ring) == 0)
        tell("poll", (uint32_t)line_bytes, board_cycles() - start);
    start = board_cycles();
    for (int i = 0; i < 100; i++) (void)ec_node_poll(&node);
    tell("idle_poll", 100, board_cycles() - start);
}

int main(void) {
    static uint8_t block[EC_ENCODER_BLOCK];
    struct ec_encoder encoder;
    uint32_t seed = 1, start;

    board_start();
    for (size_t i = 0; i < PAYLOAD; i += 2) { /* like a sensor's: small numbers, so the high byte is often 0 or 0xFF */
        seed = seed * 1664525u + 1013904223u;
        int16_t value = (int16_t)((int32_t)(seed >> 22) - 512);
        memcpy(payload + i, &value, 2);
    }
    start = board_cycles();
    (void)ec_crc32(0, payload, PAYLOAD);
    tell("crc", PAYLOAD, board_cycles() - start);
    ec_encoder_init_stream(&encoder, block, swallow, NULL);
    (void)encode("encode_stream", &encoder);
    ec_encoder_init(&encoder, encoded, sizeof encoded);
    decode(encode("encode_buffer", &encoder));
    node();
    print("end\n");
    for (;;)
        ;
}
