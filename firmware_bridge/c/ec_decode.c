#include "ec_bytes.h"
#include "ec_crc.h"
#include "ec_frame.h"

enum ec_status ec_decoder_init(struct ec_decoder *decoder, uint8_t *packet, size_t capacity) {
    if (capacity < EC_PACKET_BYTES(0)) return EC_BAD_ARGUMENT;
    if (capacity > EC_PACKET_BYTES(EC_MAX_PAYLOAD)) capacity = EC_PACKET_BYTES(EC_MAX_PAYLOAD);
    *decoder = (struct ec_decoder){.packet = packet, .capacity = capacity, .limit = capacity + (capacity + 253) / 254};
    return EC_OK;
}

static void skip(struct ec_decoder *d) {
    d->skipping = true;
    d->counters.too_long++;
}

/* Takes COBS off one byte that is no delimiter. Every store is behind a comparison with the capacity. */
static void take(struct ec_decoder *d, uint8_t byte) {
    bool code = d->left == 0;

    if (++d->encoded > d->limit) { /* before anything is stored: SPEC.md, "Limits" */
        skip(d);
        return;
    }
    if (code) {
        d->left = (uint8_t)(byte - 1);
    } else {
        d->left--;
    }
    if (!code || d->zero) {
        if (d->used == d->capacity) {
            skip(d);
            return;
        }
        d->packet[d->used++] = code ? 0 : byte;
    }
    if (code) d->zero = byte != 255;
}

/* Takes the bytes up to the next COBS code, as far as they are there and there is room: what take() does for one,
 * without its questions. */
static size_t take_run(struct ec_decoder *d, const uint8_t *bytes, size_t count) {
    size_t room = d->capacity - d->used, allowed = d->limit - d->encoded, most = count < d->left ? count : d->left,
           run = 0;
    uint8_t *to = d->packet + d->used;

    most = most < room ? most : room;
    most = most < allowed ? most : allowed;
    for (; run < most && bytes[run] != 0; run++) to[run] = bytes[run];
    d->left = (uint8_t)(d->left - run);
    d->used += run;
    d->encoded += run;
    return run;
}

static void read_header(const uint8_t *raw, struct ec_header *header) {
    *header = (struct ec_header){
        .type = raw[1],
        .stream = raw[2],
        .dtype = raw[3],
        .boot = ec_get32(raw + 4),
        .sequence = ec_get32(raw + 8),
        .time_us = ec_get64(raw + 12),
        .samples = ec_get16(raw + 20),
        .channels = ec_get16(raw + 22),
    };
}

/* Reads the packet that a delimiter ended; returns the counter of what it was. The order is that of SPEC.md. */
static uint32_t *read_packet(struct ec_decoder *d, struct ec_frame *frame) {
    struct ec_counters *counters = &d->counters;

    if (d->left != 0) return &counters->bad_cobs;
    if (d->used < EC_PACKET_BYTES(0)) return &counters->too_short;
    if (ec_crc32(0, d->packet, d->used - EC_CRC_BYTES) != ec_get32(d->packet + d->used - EC_CRC_BYTES))
        return &counters->bad_crc;
    if (d->packet[0] != EC_VERSION) return &counters->bad_version;
    read_header(d->packet, &frame->header);
    if (frame->header.type < EC_TYPE_DATA || frame->header.type > EC_TYPE_STATUS) return &counters->unknown_type;
    frame->payload = d->packet + EC_HEADER_BYTES;
    frame->size = d->used - EC_PACKET_BYTES(0);
    return ec_header_fits(&frame->header, frame->size) ? &counters->frames : &counters->bad_fields;
}

/* A delimiter came: whatever was before it, the next byte begins a frame. */
static enum ec_status end_frame(struct ec_decoder *d, struct ec_frame *frame) {
    uint32_t *counter = NULL;

    if (!d->skipping && d->encoded != 0) {
        counter = read_packet(d, frame);
        (*counter)++;
    }
    d->used = d->encoded = 0;
    d->left = 0;
    d->zero = d->skipping = false;
    return counter == &d->counters.frames ? EC_OK : EC_NOT_YET;
}

enum ec_status ec_decode(struct ec_decoder *d, const uint8_t **bytes, size_t *count, struct ec_frame *frame) {
    while (*count != 0) {
        size_t run = d->left != 0 && !d->skipping ? take_run(d, *bytes, *count) : 0;
        *bytes += run;
        *count -= run;
        if (run != 0) continue;
        uint8_t byte = *(*bytes)++;
        (*count)--;
        if (byte != 0) {
            if (!d->skipping) take(d, byte);
        } else if (end_frame(d, frame) == EC_OK) {
            return EC_OK;
        }
    }
    return EC_NOT_YET;
}

uint32_t ec_unusable(const struct ec_counters *c) {
    return c->too_long + c->bad_cobs + c->too_short + c->bad_crc + c->bad_version + c->unknown_type + c->bad_fields;
}
