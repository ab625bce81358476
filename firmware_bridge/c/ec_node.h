/* The main loop of a firmware: it registers streams, sends their samples, and answers the host. Everything here but
 * ec_stream_push() is called from one place, the main loop. Example: ports/template/main.c. */
#ifndef EC_NODE_H
#define EC_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ec_frame.h"
#include "ec_slots.h"
#include "ec_status.h"
#include "ec_stream.h"
#include "ec_time.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EC_HELLO_PERIOD_US 4000000u  /* SPEC.md asks for 5 s at least: a busy line may delay it */
#define EC_STATUS_PERIOD_US 1000000u /* SPEC.md: at most once a second */
#define EC_STATUS_BYTES 24u

/* Bytes to send frames with payloads of at most `payload` bytes: with a delimiter before them, for what noise left on
 * the line. */
#define EC_TRANSMIT_BYTES(payload) (1u + EC_ENCODED_BYTES(payload))

struct ec_node_config {
    /* Takes what it can of `count` bytes without waiting, and returns how much that was. */
    size_t (*write)(void *user, const uint8_t *bytes, size_t count);
    uint64_t (*clock_us)(void *user); /* device clock: microseconds since boot, never going back */
    void *user;
    uint32_t boot;     /* another one after every reset; not 0 */
    uint32_t delay_us; /* a sample waits at most this long for others to share a frame with; at most 2,000,000 */
    struct ec_stream *streams; /* the first is stream 1 of the protocol */
    uint8_t stream_count;
    struct ec_slots *slots; /* opened; NULL: this firmware takes no model */
    uint8_t *transmit;      /* EC_TRANSMIT_BYTES(longest payload to send) bytes; the longest HELLO must fit */
    size_t transmit_bytes;
    uint8_t *receive; /* EC_PACKET_BYTES(longest payload taken) bytes, that being 64 to 4096 */
    size_t receive_bytes;
};

struct ec_node {
    struct ec_node_config config;
    struct ec_encoder encoder;
    struct ec_decoder decoder;
    size_t sent;       /* bytes of `transmit` that the line has taken */
    size_t sending;    /* bytes of `transmit` that are to be sent */
    uint64_t spoke_us; /* when the last frame was made */
    uint32_t sequence; /* of stream 0 */
    uint32_t refused;  /* frames that were whole, but nothing that a host may send */
    bool pong_due, answer_due, hello_asked;
    uint8_t pong[EC_PONG_BYTES];
    uint8_t answer[EC_ANSWER_BYTES];
    uint64_t hello_us, status_us; /* when the next round of each is due */
    uint32_t hello_next;          /* stream whose HELLO comes next in this round; above the last: the round is over */
    uint32_t status_next;         /* same */
    uint8_t data_next;            /* stream that is looked at first for samples: each gets its turn */
};

/* EC_BAD_ARGUMENT: a range above is left; EC_TOO_SMALL: a sample or a HELLO does not fit into `transmit`. */
enum ec_status ec_node_init(struct ec_node *node, const struct ec_node_config *config);

/* Hands over bytes from the host, the last of which came at `received_us` of the device clock. */
void ec_node_receive(struct ec_node *node, const uint8_t *bytes, size_t count, uint64_t received_us);

/* Sends what is most urgent: at most one frame, or the rest of one. EC_NOT_YET: nothing was to be sent, or the line
 * takes no more now. */
enum ec_status ec_node_poll(struct ec_node *node);

#ifdef __cplusplus
}
#endif

#endif
