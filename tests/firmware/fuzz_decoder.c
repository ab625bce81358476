/* Fuzzes all that a host can reach in a firmware: decoder, node, TIME and ADAPTER with flash below it; and every frame
 * that the node sends in return must be one. Two ways:
 *
 *     clang -fsanitize=fuzzer,address,undefined -DGUIDED
 *         libFuzzer finds the inputs by coverage
 *     fuzz_decoder BYTES SEED
 *         noise, and valid frames with and without damage; prints {"bytes", "frames", ...}
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ec_bytes.h"
#include "ec_crc.h"
#include "ec_node.h"

#define PAYLOAD 700u /* so that frames of the longest payload are too long, too */
#define BLOCK 512u
#define DATA 2048u

static uint8_t flash[2 * BLOCK + 2 * DATA];
static uint64_t now;
static struct ec_decoder host; /* what the node sends ends here */
static struct ec_node node;
static struct ec_slots slots;
static struct ec_stream stream;

static void demand(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        abort();
    }
}

static enum ec_status flash_read(void *user, uint32_t address, uint8_t *bytes, uint32_t count) {
    (void)user;
    demand(address <= sizeof flash && count <= sizeof flash - address, "read outside of the flash");
    memcpy(bytes, flash + address, count);
    return EC_OK;
}

static enum ec_status flash_program(void *user, uint32_t address, const uint8_t *unit) {
    (void)user;
    demand(address % 4 == 0 && address <= sizeof flash - 4, "programmed outside of the flash");
    demand(ec_get32(flash + address) == 0xFFFFFFFF, "programmed what is not erased");
    memcpy(flash + address, unit, 4);
    return EC_OK;
}

static enum ec_status flash_erase(void *user, uint32_t address) {
    (void)user;
    demand(address % BLOCK == 0 && address <= sizeof flash - BLOCK, "erased outside of the flash");
    memset(flash + address, 0xFF, BLOCK);
    return EC_OK;
}

static enum ec_status validate(void *user, uint32_t address, uint32_t size) {
    (void)user;
    return size > 8 && flash[address] != 0 ? EC_OK : EC_BAD_MODEL;
}

static size_t write_line(void *user, const uint8_t *bytes, size_t count) {
    struct ec_frame frame;
    size_t left = count;

    (void)user;
    while (ec_decode(&host, &bytes, &left, &frame) == EC_OK)
        ;
    return count;
}

static uint64_t clock_us(void *user) {
    (void)user;
    return now += 50;
}

/* Buffers come from malloc, exactly as large as stated, so that a sanitizer sees the first byte beyond. */
static void start(void) {
    static uint8_t *transmit, *receive, *packet, *unit, *ring;
    const struct ec_hello hello = {"gyro", "rad/s", 1, 1000, 3, EC_DTYPE_INT16, "fuzz", NULL, 0};

    if (!transmit) {
        transmit = malloc(EC_TRANSMIT_BYTES(300));
        receive = malloc(EC_PACKET_BYTES(PAYLOAD));
        packet = malloc(EC_PACKET_BYTES(EC_MAX_PAYLOAD));
        unit = malloc(4);
        ring = malloc(EC_RING_BYTES(64, 6));
    }
    const struct ec_slots_config slots_config = {
        .flash = {flash_read, flash_program, flash_erase, NULL, 4},
        .header = {0, BLOCK + DATA},
        .header_bytes = BLOCK,
        .data = {BLOCK, 2 * BLOCK + DATA},
        .data_bytes = DATA,
        .erase_bytes = BLOCK,
        .unit = unit,
        .validate = validate,
    };
    demand(ec_slots_open(&slots, &slots_config) == EC_OK &&
               ec_stream_init(&stream, &hello, ring, EC_RING_BYTES(64, 6)) == EC_OK,
           "no start");
    const struct ec_node_config config = {
        .write = write_line,
        .clock_us = clock_us,
        .boot = 1,
        .delay_us = 1000,
        .streams = &stream,
        .stream_count = 1,
        .slots = &slots,
        .transmit = transmit,
        .transmit_bytes = EC_TRANSMIT_BYTES(300),
        .receive = receive,
        .receive_bytes = EC_PACKET_BYTES(PAYLOAD),
    };
    demand(ec_node_init(&node, &config) == EC_OK, "no start");
    demand(ec_decoder_init(&host, packet, EC_PACKET_BYTES(EC_MAX_PAYLOAD)) == EC_OK, "no start");
}

static void feed(const uint8_t *bytes, size_t count) {
    const int16_t sample[3] = {1, -1, 0};

    ec_node_receive(&node, bytes, count, clock_us(NULL));
    (void)ec_stream_push(&stream, sample, clock_us(NULL));
    for (int i = 0; i < 4; i++) (void)ec_node_poll(&node);
    demand(ec_unusable(&host.counters) == 0, "the node sent what is no frame");
}

#ifdef GUIDED

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    memset(flash, 0xFF, sizeof flash);
    start();
    /* Twice: as it came, and encoded as a frame, which libFuzzer would never find the CRC of. */
    feed(bytes, count);
    if (count >= 1 && count - 1 <= PAYLOAD) {
        static uint8_t out[EC_ENCODED_BYTES(PAYLOAD)];
        struct ec_header header = {.type = (uint8_t)(2 + bytes[0] % 4)};
        struct ec_encoder encoder;
        ec_encoder_init(&encoder, out, sizeof out);
        demand(ec_encode_begin(&encoder, &header, count - 1) == EC_OK &&
                   ec_encode_payload(&encoder, bytes + 1, count - 1) == EC_OK && ec_encode_end(&encoder) == EC_OK,
               "not encoded");
        feed(out, encoder.used);
    }
    return 0;
}

#else

#define MODEL 150u /* bytes: a few chunks */

static uint32_t seed, model_crc[2];

static uint32_t draw(void) /* xorshift32 (G. Marsaglia, 2003) */
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

/* A request that is right, or nearly. There are two models, of one byte repeated, so that some transfers get to their
 * end. */
static size_t make_payload(uint8_t *payload) {
    static const size_t sizes[] = {0, 20, 66, 12, 4, 12}; /* of each request */
    static uint32_t turn;
    uint8_t op = (uint8_t)(draw() % 6);
    size_t size = draw() % 16 ? sizes[draw() % 4 ? op : draw() % 6] : draw() % (PAYLOAD + 100);

    for (size_t i = 0; i < size; i++) payload[i] = draw() % 3 ? 0 : (uint8_t)draw();
    if (size) payload[0] = op;
    uint8_t which = (turn++ / 200 + (draw() % 32 == 0)) % 2; /* now the one, now the other */
    if (size >= 12) ec_put64(payload + 4, which);
    if (size >= 20 && payload[0] == 1) {
        ec_put32(payload + 12, draw() % 8 ? MODEL : draw() % 5000);
        ec_put32(payload + 16, model_crc[which]);
    } else if (size > 16 && payload[0] == 2) {
        ec_put32(payload + 12, draw() % 4 ? slots.next : draw() % 100);
        memset(payload + 16, which + 1, draw() % 64 ? size - 16 : 0);
    }
    return size;
}

/* Puts a frame into `out` and returns its length; at times bits of it are flipped, or its delimiter is missing. */
static size_t make_frame(uint8_t *out, size_t capacity) {
    static uint8_t payload[PAYLOAD + 100];
    size_t size = make_payload(payload);
    struct ec_header header = {.type = (uint8_t)(draw() % 2   ? EC_TYPE_ADAPTER
                                                 : draw() % 8 ? 2 + draw() % 4
                                                              : draw()),
                               .stream = (uint8_t)(draw() % 8 ? 0 : draw())};
    struct ec_encoder encoder;

    ec_encoder_init(&encoder, out, capacity);
    if (ec_encode_begin(&encoder, &header, size) || ec_encode_payload(&encoder, payload, size) ||
        ec_encode_end(&encoder))
        return 0;
    for (unsigned flips = draw() % 4 ? 0 : draw() % 6; flips; flips--)
        out[draw() % encoder.used] ^= (uint8_t)(1u << draw() % 8);
    return encoder.used - (draw() % 16 == 0);
}

static size_t make_noise(uint8_t *out, size_t capacity) {
    size_t count = draw() % (draw() % 32 ? 40 : capacity);
    uint32_t zeros = draw() % 200; /* from none at all to every other byte */

    for (size_t i = 0; i < count; i++) out[i] = draw() % 200 < zeros / 2 ? 0 : (uint8_t)draw();
    return count;
}

int main(int argc, char **argv) {
    static uint8_t out[EC_ENCODED_BYTES(PAYLOAD + 100)];
    uint64_t bytes = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000, fed = 0;
    uint32_t answers = 0, frames = 0, unusable = 0, switches = 0, counter = 0;

    seed = (argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1) * 2654435761u + 1;
    for (int i = 0; i < 2; i++) {
        memset(flash, i + 1, MODEL);
        model_crc[i] = ec_crc32(0, flash, MODEL);
    }
    memset(flash, 0xFF, sizeof flash);
    start();
    while (fed < bytes) {
        size_t count = draw() % 3 ? make_frame(out, sizeof out) : make_noise(out, sizeof out);
        feed(out, count);
        fed += count;
        switches += slots.counter != counter;
        counter = slots.counter;
        if (draw() % 1000 == 0) { /* a reset */
            answers += host.counters.frames;
            frames += node.decoder.counters.frames;
            unusable += ec_unusable(&node.decoder.counters);
            start();
        }
    }
    printf("{\"bytes\": %llu, \"frames\": %u, \"unusable\": %u, \"answers\": %u, \"switches\": %u}\n",
           (unsigned long long)fed, frames + node.decoder.counters.frames,
           unusable + ec_unusable(&node.decoder.counters), answers + host.counters.frames, switches);
    return 0;
}

#endif
