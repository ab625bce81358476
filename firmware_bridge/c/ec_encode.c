#include "ec_bytes.h"
#include "ec_crc.h"
#include "ec_frame.h"

#define FULL_BLOCK 255u /* bytes of a COBS block without a zero at its end, code byte included */

void ec_encoder_init(struct ec_encoder *encoder, uint8_t *buffer, size_t capacity) {
    *encoder = (struct ec_encoder){.buffer = buffer, .capacity = capacity};
}

void ec_encoder_init_stream(struct ec_encoder *encoder, uint8_t *buffer, ec_write write, void *user) {
    *encoder = (struct ec_encoder){.buffer = buffer, .capacity = EC_ENCODER_BLOCK, .write = write, .user = user};
}

/* Puts one byte; between blocks all bytes that are there may go. */
static void put(struct ec_encoder *e, uint8_t byte) {
    if (e->used == e->capacity) {
        e->status = e->status ? e->status : EC_TOO_SMALL;
        return;
    }
    e->buffer[e->used++] = byte;
}

static void write_out(struct ec_encoder *e) {
    if (!e->write) return;
    if (!e->status) e->status = e->write(e->user, e->buffer, e->used);
    e->used = 0;
}

static void open_block(struct ec_encoder *e) {
    e->code = e->used;
    e->open = true;
    put(e, 0);
}

static void close_block(struct ec_encoder *e) {
    if (!e->status) e->buffer[e->code] = (uint8_t)(e->used - e->code); /* at most 255: a full block is closed at once */
    e->open = false;
    write_out(e);
}

/* Copies bytes up to a zero, the end of the block, or that of the buffer; returns how many. */
static size_t copy_run(struct ec_encoder *e, const uint8_t *bytes, size_t count) {
    size_t block = FULL_BLOCK - (e->used - e->code), room = e->capacity - e->used, most = count < block ? count : block,
           run = 0;
    uint8_t *to = e->buffer + e->used;

    most = most < room ? most : room;
    for (; run < most && bytes[run] != 0; run++) to[run] = bytes[run];
    e->used += run;
    return run;
}

/* COBS. A zero ends a block and opens the next; a full block opens the next only where another byte follows. */
static void stuff(struct ec_encoder *e, const uint8_t *bytes, size_t count) {
    while (count != 0 && !e->status) {
        if (!e->open) open_block(e);
        size_t run = e->status ? 0 : copy_run(e, bytes, count);
        bytes += run;
        count -= run;
        if (e->used - e->code == FULL_BLOCK) {
            close_block(e);
        } else if (count != 0 && *bytes == 0) {
            close_block(e);
            open_block(e);
            bytes++;
            count--;
        } else if (count != 0) {
            e->status = EC_TOO_SMALL;
        }
    }
}

static void stuff_checked(struct ec_encoder *e, const uint8_t *bytes, size_t count) {
    e->crc = ec_crc32(e->crc, bytes, count);
    stuff(e, bytes, count);
}

enum ec_status ec_encode_begin(struct ec_encoder *e, const struct ec_header *header, size_t size) {
    uint8_t raw[EC_HEADER_BYTES] = {EC_VERSION, header->type, header->stream, header->dtype};
    ec_put32(raw + 4, header->boot);
    ec_put32(raw + 8, header->sequence);
    ec_put64(raw + 12, header->time_us);
    ec_put16(raw + 20, header->samples);
    ec_put16(raw + 22, header->channels);

    e->used = 0;
    e->crc = 0;
    e->wanted = size;
    e->status = ec_header_fits(header, size) ? EC_OK : EC_BAD_ARGUMENT;
    open_block(e);
    stuff_checked(e, raw, sizeof raw);
    return e->status;
}

enum ec_status ec_encode_payload(struct ec_encoder *e, const uint8_t *bytes, size_t count) {
    if (!e->status && count > e->wanted) e->status = EC_BAD_ARGUMENT;
    if (e->status) return e->status;
    e->wanted -= count;
    stuff_checked(e, bytes, count);
    return e->status;
}

enum ec_status ec_encode_end(struct ec_encoder *e) {
    uint8_t crc[EC_CRC_BYTES];

    if (!e->status && e->wanted) e->status = EC_BAD_ARGUMENT;
    if (e->status) return e->status;
    ec_put32(crc, e->crc);
    stuff(e, crc, sizeof crc);
    if (e->open) close_block(e);
    put(e, 0);
    write_out(e);
    return e->status;
}
