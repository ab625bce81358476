/* Frames of SPEC.md: what both directions share, the encoder and the decoder. */
#ifndef EC_FRAME_H
#define EC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ec_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EC_VERSION 1u
#define EC_HEADER_BYTES 24u
#define EC_CRC_BYTES 4u
#define EC_MAX_PAYLOAD 4096u

/* Sizes for a payload of at most `payload` bytes: of a packet (header, payload, CRC), and of its encoding with the
 * delimiter. */
#define EC_PACKET_BYTES(payload) (EC_HEADER_BYTES + (payload) + EC_CRC_BYTES)
#define EC_ENCODED_BYTES(payload) (EC_PACKET_BYTES(payload) + (EC_PACKET_BYTES(payload) + 253u) / 254u + 1u)

enum ec_type { EC_TYPE_DATA = 1, EC_TYPE_HELLO, EC_TYPE_TIME, EC_TYPE_ADAPTER, EC_TYPE_STATUS };

enum ec_dtype { EC_DTYPE_INT8 = 1, EC_DTYPE_UINT8, EC_DTYPE_INT16, EC_DTYPE_UINT16, EC_DTYPE_INT32, EC_DTYPE_FLOAT32 };

struct ec_header {
    uint8_t type;      /* enum ec_type */
    uint8_t stream;    /* 0 is the firmware itself */
    uint8_t dtype;     /* enum ec_dtype; 0 unless DATA */
    uint32_t boot;     /* differs after every reset */
    uint32_t sequence; /* of this stream and boot */
    uint64_t time_us;  /* device clock */
    uint16_t samples;  /* in the payload; 0 unless DATA */
    uint16_t channels; /* of each sample; 0 unless DATA */
};

/* Returns the bytes of one value of `dtype`, 0 where there is no such dtype. */
size_t ec_dtype_bytes(uint8_t dtype);

/* Whether header and a payload of `size` bytes say the same (SPEC.md: `bad_fields` where not). */
bool ec_header_fits(const struct ec_header *header, size_t size);

/* ---- Encoder: a frame goes out in pieces, COBS and CRC on the way; no piece is kept or read again. ---- */

/* Takes all `count` bytes, or returns a failure, which then is the frame's. */
typedef enum ec_status (*ec_write)(void *user, const uint8_t *bytes, size_t count);

#define EC_ENCODER_BLOCK 255u /* bytes that an encoder with `write` needs: a COBS block is known only at its end */

struct ec_encoder {
    uint8_t *buffer;
    size_t capacity;
    ec_write write; /* NULL: the whole frame stays in `buffer` */
    void *user;
    size_t used;           /* bytes in `buffer` */
    size_t code;           /* index of the open block's code byte */
    bool open;             /* whether a block is open */
    uint32_t crc;          /* of what came so far */
    size_t wanted;         /* bytes of payload still to come */
    enum ec_status status; /* the first failure, which stays */
};

/* Puts frames whole into `buffer`, of EC_ENCODED_BYTES(longest payload) bytes. */
void ec_encoder_init(struct ec_encoder *encoder, uint8_t *buffer, size_t capacity);

/* Writes frames out block by block through `buffer`, of EC_ENCODER_BLOCK bytes. */
void ec_encoder_init_stream(struct ec_encoder *encoder, uint8_t *buffer, ec_write write, void *user);

/* Begins a frame whose payload will have `size` bytes. EC_BAD_ARGUMENT: header and size do not fit together. */
enum ec_status ec_encode_begin(struct ec_encoder *encoder, const struct ec_header *header, size_t size);

/* Adds `count` bytes of payload. EC_BAD_ARGUMENT: more than were announced. */
enum ec_status ec_encode_payload(struct ec_encoder *encoder, const uint8_t *bytes, size_t count);

/* Ends the frame. Without `write` the bytes 0 to `used` - 1 of `buffer` are it, with its delimiter. EC_TOO_SMALL: they
 * did not fit; EC_BAD_ARGUMENT: less payload than announced; or what `write` returned. */
enum ec_status ec_encode_end(struct ec_encoder *encoder);

/* ---- Decoder: bytes in, from anywhere in a stream, and frames out. ---- */

/* What was received, by the names of SPEC.md, "What a decoder does". They wrap at 2^32. */
struct ec_counters {
    uint32_t frames; /* that were whole */
    uint32_t too_long, bad_cobs, too_short, bad_crc, bad_version, unknown_type, bad_fields;
};

struct ec_decoder {
    uint8_t *packet; /* bytes of the frame that is coming, COBS taken off */
    size_t capacity;
    size_t limit;   /* bytes of an encoding that `packet` could take */
    size_t used;    /* bytes in `packet` */
    size_t encoded; /* bytes since the delimiter */
    uint8_t left;   /* bytes until the next COBS code */
    bool zero;      /* a zero stands between this COBS block and the next */
    bool skipping;  /* too long: nothing is stored until the next delimiter */
    struct ec_counters counters;
};

struct ec_frame {
    struct ec_header header;
    const uint8_t *payload; /* in the decoder's packet: valid until its next call; at no particular alignment */
    size_t size;
};

/* `packet` has EC_PACKET_BYTES(longest payload that is taken) bytes, at least EC_PACKET_BYTES(0); longer frames are
 * dropped. */
enum ec_status ec_decoder_init(struct ec_decoder *decoder, uint8_t *packet, size_t capacity);

/* Takes bytes until a frame is whole: EC_OK, and `bytes` and `count` are behind its delimiter; or EC_NOT_YET, and all
 * are taken.
 *
 *     while (ec_decode(&decoder, &bytes, &count, &frame) == EC_OK) use(&frame); */
enum ec_status ec_decode(struct ec_decoder *decoder, const uint8_t **bytes, size_t *count, struct ec_frame *frame);

/* Returns how many frames were received and could not be used: the sum of all counters but `frames`. */
uint32_t ec_unusable(const struct ec_counters *counters);

#ifdef __cplusplus
}
#endif

#endif
