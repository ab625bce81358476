/* The library's encoder, decoder and HELLO as a filter, for tests/bridge/test_c_frames.py.
 *
 *     frames_tool decode CAPACITY CHUNK
 *         bytes on stdin, CHUNK at a time: one JSON object for each frame, then the counters
 *     frames_tool encode | stream
 *         "type stream dtype boot sequence time samples channels payload-in-hex" a line: the bytes
 *     frames_tool hello NAME UNIT SCALE RATE CHANNELS DTYPE FIRMWARE KIND MAX_PAYLOAD CAPACITY
 *         the payload, or the status, as text
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ec_frame.h"
#include "ec_hello.h"

static void print_frame(const struct ec_frame *f) {
    const struct ec_header *h = &f->header;

    printf("{\"type\": %u, \"stream\": %u, \"dtype\": %u, \"boot\": %" PRIu32 ", \"sequence\": %" PRIu32
           ", \"time_us\": %" PRIu64 ", \"samples\": %u, \"channels\": %u, \"payload\": \"",
           h->type, h->stream, h->dtype, h->boot, h->sequence, h->time_us, h->samples, h->channels);
    for (size_t i = 0; i < f->size; i++) printf("%02x", f->payload[i]);
    printf("\"}\n");
}

static int decode(size_t capacity, size_t chunk) {
    struct ec_decoder decoder;
    struct ec_frame frame;
    /* Both exactly as large as the library may use, so that a sanitizer sees the first byte beyond. */
    uint8_t *packet = malloc(capacity), *input = malloc(chunk);
    size_t count;

    if (ec_decoder_init(&decoder, packet, capacity)) return 2;
    while ((count = fread(input, 1, chunk, stdin)) != 0) {
        const uint8_t *bytes = input;
        while (ec_decode(&decoder, &bytes, &count, &frame) == EC_OK) print_frame(&frame);
    }
    const struct ec_counters *c = &decoder.counters;
    printf("{\"frames\": %" PRIu32 ", \"too_long\": %" PRIu32 ", \"bad_cobs\": %" PRIu32 ", \"too_short\": %" PRIu32
           ", \"bad_crc\": %" PRIu32 ", \"bad_version\": %" PRIu32 ", \"unknown_type\": %" PRIu32
           ", \"bad_fields\": %" PRIu32 "}\n",
           c->frames, c->too_long, c->bad_cobs, c->too_short, c->bad_crc, c->bad_version, c->unknown_type,
           c->bad_fields);
    free(packet);
    free(input);
    return 0;
}

static enum ec_status to_stdout(void *user, const uint8_t *bytes, size_t count) {
    (void)user;
    return fwrite(bytes, 1, count, stdout) == count ? EC_OK : EC_LINK;
}

static size_t unhex(const char *hex, uint8_t *bytes) {
    size_t count = 0;
    unsigned byte;

    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) bytes[count++] = (uint8_t)byte;
    return count;
}

static int encode(int streaming) {
    static char line[2 * EC_MAX_PAYLOAD + 256], hex[2 * EC_MAX_PAYLOAD + 2];
    static uint8_t payload[EC_MAX_PAYLOAD];
    unsigned type, stream, dtype, samples, channels;
    struct ec_header h = {0};
    struct ec_encoder e;
    size_t capacity = streaming ? EC_ENCODER_BLOCK : EC_ENCODED_BYTES(EC_MAX_PAYLOAD);
    uint8_t *buffer = malloc(capacity);

    if (streaming)
        ec_encoder_init_stream(&e, buffer, to_stdout, NULL);
    else
        ec_encoder_init(&e, buffer, capacity);
    while (fgets(line, sizeof line, stdin)) {
        hex[0] = 0;
        if (sscanf(line, "%u %u %u %" SCNu32 " %" SCNu32 " %" SCNu64 " %u %u %s", &type, &stream, &dtype, &h.boot,
                   &h.sequence, &h.time_us, &samples, &channels, hex) < 8)
            return 2;
        h.type = (uint8_t)type, h.stream = (uint8_t)stream, h.dtype = (uint8_t)dtype;
        h.samples = (uint16_t)samples, h.channels = (uint16_t)channels;
        size_t size = unhex(hex, payload), half = size / 3;
        if (ec_encode_begin(&e, &h, size) || ec_encode_payload(&e, payload, half) ||
            ec_encode_payload(&e, payload + half, size - half) || ec_encode_end(&e))
            return 3;
        if (!streaming && to_stdout(NULL, buffer, e.used)) return 4;
    }
    free(buffer);
    return 0;
}

static int hello(char **a) {
    struct ec_hello h = {a[0], a[1], strtod(a[2], NULL),  strtod(a[3], NULL), (uint16_t)atoi(a[4]), (uint8_t)atoi(a[5]),
                         a[6], a[7], (uint16_t)atoi(a[8])};
    size_t capacity = (size_t)atoi(a[9]), size;
    uint8_t *out = malloc(capacity);
    enum ec_status status = ec_hello_encode(&h, out, capacity, &size);

    if (status) printf("status %d\n", status);
    for (size_t i = 0; !status && i < size; i++) printf("%02x", out[i]);
    free(out);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "decode") == 0) return decode((size_t)atoi(argv[2]), (size_t)atoi(argv[3]));
    if (argc == 2 && (strcmp(argv[1], "encode") == 0 || strcmp(argv[1], "stream") == 0))
        return encode(argv[1][0] == 's');
    if (argc == 12 && strcmp(argv[1], "hello") == 0) return hello(argv + 2);
    return 1;
}
