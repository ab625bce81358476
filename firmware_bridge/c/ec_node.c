#include "ec_node.h"

#include <string.h>

#include "ec_bytes.h"

/* ---- Preparation ---- */

/* Longest payload whose encoding fits behind a delimiter: n bytes of a packet take n + ceil(n / 254), and the
 * delimiter. */
static size_t payload_of(size_t transmit_bytes) {
    size_t encoded = transmit_bytes < EC_TRANSMIT_BYTES(0) ? 0 : transmit_bytes - 2;
    size_t packet = encoded - (encoded + 254) / 255;
    size_t payload = packet < EC_PACKET_BYTES(0) ? 0 : packet - EC_PACKET_BYTES(0);

    return payload < EC_MAX_PAYLOAD ? payload : EC_MAX_PAYLOAD;
}

static enum ec_status check_stream(struct ec_stream *stream, size_t longest, uint16_t max_payload) {
    uint8_t payload[EC_HELLO_MAX_BYTES];
    size_t size, most = longest / stream->ring.sample_bytes;

    stream->hello.max_payload = max_payload;
    enum ec_status status =
        ec_hello_encode(&stream->hello, payload, longest < sizeof payload ? longest : sizeof payload, &size);
    if (!status && most == 0) status = EC_TOO_SMALL;
    stream->most = (uint16_t)most; /* at most 4096 */
    return status;
}

static bool name_twice(const struct ec_node_config *c) {
    for (uint32_t i = 0; i < c->stream_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(c->streams[i].hello.name, c->streams[j].hello.name) == 0) return true;
    return false;
}

enum ec_status ec_node_init(struct ec_node *node, const struct ec_node_config *config) {
    size_t longest = payload_of(config->transmit_bytes);
    enum ec_status status = EC_OK;

    *node = (struct ec_node){.config = *config};
    if (config->boot == 0 || config->delay_us > 2000000 || config->receive_bytes < EC_PACKET_BYTES(64))
        return EC_BAD_ARGUMENT;
    if (longest < EC_STATUS_BYTES) return EC_TOO_SMALL;
    (void)ec_decoder_init(&node->decoder, config->receive, config->receive_bytes); /* above: it is long enough */
    for (uint32_t i = 0; i < config->stream_count && !status; i++)
        status = check_stream(&config->streams[i], longest, (uint16_t)(node->decoder.capacity - EC_PACKET_BYTES(0)));
    if (status) return status;
    if (name_twice(config)) return EC_BAD_ARGUMENT;
    config->transmit[0] = 0;
    ec_encoder_init(&node->encoder, config->transmit + 1, config->transmit_bytes - 1);
    node->hello_next = config->stream_count; /* no round is under way; the first is due at once */
    node->status_next = config->stream_count + 1u;
    node->status_us = EC_STATUS_PERIOD_US;
    return EC_OK;
}

/* ---- Frames out ---- */

static uint64_t now_us(const struct ec_node *node) {
    return node->config.clock_us(node->config.user);
}

/* Gives the line what it takes; true where nothing is left. */
static bool flush(struct ec_node *node) {
    if (node->sent < node->sending) {
        const uint8_t *rest = node->config.transmit + node->sent;
        node->sent += node->config.write(node->config.user, rest, node->sending - node->sent);
    }
    return node->sent >= node->sending;
}

/* Begins a frame of `stream`, with its next sequence number. */
static void begin(struct ec_node *node, struct ec_header *header, size_t size) {
    uint32_t *sequence = header->stream ? &node->config.streams[header->stream - 1].sequence : &node->sequence;

    header->boot = node->config.boot;
    header->sequence = (*sequence)++;
    (void)ec_encode_begin(&node->encoder, header, size); /* a failure stays until ec_encode_end() */
}

/* Hands the frame over to flush(). What was there at ec_node_init() fits; a frame that fails even so is not sent: the
 * gap shows. */
static void end(struct ec_node *node, uint64_t now) {
    bool silence = node->spoke_us == 0 || now - node->spoke_us > EC_STATUS_PERIOD_US;

    if (ec_encode_end(&node->encoder)) return;
    node->sent = silence ? 0 : 1; /* the delimiter before it */
    node->sending = 1 + node->encoder.used;
    node->spoke_us = now ? now : 1;
}

static void send_frame(struct ec_node *node, enum ec_type type, uint8_t stream, const uint8_t *payload, size_t size) {
    uint64_t now = now_us(node);
    struct ec_header header = {.type = (uint8_t)type, .stream = stream, .time_us = now};

    begin(node, &header, size);
    (void)ec_encode_payload(&node->encoder, payload, size);
    end(node, now);
}

static void send_hello(struct ec_node *node, uint8_t stream) {
    uint8_t payload[EC_HELLO_MAX_BYTES];
    size_t size;

    if (ec_hello_encode(&node->config.streams[stream - 1].hello, payload, sizeof payload, &size) == EC_OK)
        send_frame(node, EC_TYPE_HELLO, stream, payload, size);
}

static bool hello_due(struct ec_node *node, uint64_t now) {
    if (node->hello_next >= node->config.stream_count && (node->hello_asked || now >= node->hello_us)) {
        node->hello_asked = false;
        node->hello_us = now + EC_HELLO_PERIOD_US;
        node->hello_next = 0;
    }
    return node->hello_next < node->config.stream_count;
}

static void send_status(struct ec_node *node, uint8_t stream) {
    uint8_t payload[EC_STATUS_BYTES] = {0};
    const struct ec_slots *slots = node->config.slots;
    uint32_t dropped = 0;

    for (uint32_t i = 0; i < node->config.stream_count; i++)
        if (stream == 0 || stream == i + 1) dropped += ec_ring_dropped(&node->config.streams[i].ring);
    ec_put32(payload, dropped);
    ec_put32(payload + 4, stream ? node->config.streams[stream - 1].sequence : node->sequence);
    ec_put32(payload + 8, ec_unusable(&node->decoder.counters) + node->refused);
    if (slots && slots->active != EC_NO_SLOT) memcpy(payload + 12, slots->model.id, EC_ID_BYTES);
    payload[20] = slots ? slots->active : EC_NO_SLOT;
    send_frame(node, EC_TYPE_STATUS, stream, payload, sizeof payload);
}

static bool status_due(struct ec_node *node, uint64_t now) {
    if (node->status_next > node->config.stream_count && now >= node->status_us) {
        node->status_us = now + EC_STATUS_PERIOD_US;
        node->status_next = 0;
    }
    return node->status_next <= node->config.stream_count;
}

/* ---- Samples ---- */

static void send_data(struct ec_node *node, uint8_t index) {
    struct ec_stream *stream = &node->config.streams[index];
    uint16_t run = ec_stream_run(stream);
    struct ec_header header = {.type = EC_TYPE_DATA, .stream = (uint8_t)(index + 1), .dtype = stream->hello.dtype};
    uint64_t time;

    (void)ec_ring_at(&stream->ring, 0, &header.time_us);
    header.samples = run;
    header.channels = stream->hello.channels;
    begin(node, &header, (size_t)run * stream->ring.sample_bytes);
    for (uint32_t i = 0; i < run; i++)
        (void)ec_encode_payload(&node->encoder, ec_ring_at(&stream->ring, i, &time), stream->ring.sample_bytes);
    end(node, now_us(node));
    ec_ring_release(&stream->ring, run);
}

static bool sent_data(struct ec_node *node, uint64_t now) {
    for (uint32_t i = 0; i < node->config.stream_count; i++) {
        uint8_t index = (uint8_t)((node->data_next + i) % node->config.stream_count);
        if (ec_stream_due(&node->config.streams[index], now, node->config.delay_us)) {
            send_data(node, index);
            node->data_next = (uint8_t)((index + 1) % node->config.stream_count);
            return true;
        }
    }
    return false;
}

/* ---- Main loop ---- */

enum ec_status ec_node_poll(struct ec_node *node) {
    uint64_t now = now_us(node);

    if (!flush(node)) return EC_NOT_YET;
    if (node->pong_due) { /* first: what it measures is time */
        node->pong_due = false;
        send_frame(node, EC_TYPE_TIME, 0, node->pong, sizeof node->pong);
    } else if (node->answer_due) {
        node->answer_due = false;
        send_frame(node, EC_TYPE_ADAPTER, 0, node->answer, sizeof node->answer);
    } else if (hello_due(node, now)) {
        send_hello(node, (uint8_t)++node->hello_next);
    } else if (status_due(node, now)) {
        send_status(node, (uint8_t)node->status_next++);
    } else if (!sent_data(node, now)) {
        return EC_NOT_YET;
    }
    (void)flush(node);
    return EC_OK;
}

static enum ec_status answer_adapter(struct ec_node *node, const struct ec_frame *frame) {
    enum ec_status status;

    if (!node->config.slots) return EC_BAD_ARGUMENT;
    status = ec_slots_request(node->config.slots, frame->payload, frame->size, node->answer);
    node->answer_due = node->answer_due || status == EC_OK;
    return status;
}

static enum ec_status handle(struct ec_node *node, const struct ec_frame *frame, uint64_t received_us) {
    enum ec_status status = EC_BAD_ARGUMENT;

    if (frame->header.stream != 0) return status;
    if (frame->header.type == EC_TYPE_TIME) {
        status = ec_time_answer(frame->payload, frame->size, received_us, node->pong);
        node->pong_due = node->pong_due || status == EC_OK;
    } else if (frame->header.type == EC_TYPE_ADAPTER) {
        status = answer_adapter(node, frame);
    } else if (frame->header.type == EC_TYPE_HELLO && frame->size == 0) {
        node->hello_asked = true;
        status = EC_OK;
    }
    return status;
}

void ec_node_receive(struct ec_node *node, const uint8_t *bytes, size_t count, uint64_t received_us) {
    struct ec_frame frame;

    while (ec_decode(&node->decoder, &bytes, &count, &frame) == EC_OK)
        if (handle(node, &frame, received_us)) node->refused++;
}
