#include "ec_stream.h"

#include "ec_frame.h"

enum ec_status ec_stream_init(struct ec_stream *stream, const struct ec_hello *hello, uint8_t *buffer, size_t bytes) {
    uint8_t payload[EC_HELLO_MAX_BYTES];
    size_t size;

    *stream = (struct ec_stream){.hello = *hello};
    stream->hello.max_payload =
        EC_MAX_PAYLOAD; /* until ec_node_init() knows; any allowed one, so that the rest is checked */
    enum ec_status status = ec_hello_encode(&stream->hello, payload, sizeof payload, &size);
    if (status) return status;
    /* At 1 sample in 580 years the quotient would leave 64 bits. */
    stream->period_ns = hello->rate < 1e-9 ? UINT64_C(1000000000000000000) : (uint64_t)(1e9 / hello->rate);
    return ec_ring_init(&stream->ring, buffer, bytes, hello->channels * ec_dtype_bytes(hello->dtype));
}

enum ec_status ec_stream_push(struct ec_stream *stream, const void *sample, uint64_t time_us) {
    return ec_ring_push(&stream->ring, sample, time_us);
}

bool ec_stream_due(const struct ec_stream *stream, uint64_t now_us, uint32_t delay_us) {
    uint32_t count = ec_ring_count(&stream->ring);
    uint64_t first;

    if (count == 0) return false;
    (void)ec_ring_at(&stream->ring, 0, &first);
    return count >= stream->most || now_us >= first + delay_us;
}

uint16_t ec_stream_run(const struct ec_stream *stream) {
    uint32_t count = ec_ring_count(&stream->ring), most = count < stream->most ? count : stream->most, run = 1;
    uint64_t first, time, expected_ns = 0;

    (void)ec_ring_at(&stream->ring, 0, &first);
    for (; run < most; run++) {
        (void)ec_ring_at(&stream->ring, run, &time);
        expected_ns += stream->period_ns;
        uint64_t got_ns = (time - first) * 1000; /* a time before the first wraps, and ends the run */
        uint64_t off = got_ns > expected_ns ? got_ns - expected_ns : expected_ns - got_ns;
        if (off > stream->period_ns / 2 + 1000) break;
    }
    return (uint16_t)run;
}
