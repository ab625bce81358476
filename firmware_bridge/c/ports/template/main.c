/* A firmware: one accelerometer of three axes, 100 samples a second. Copy it, and port.h; write port.c. */
#include "ec_node.h"
#include "port.h"

static uint8_t waiting[EC_RING_BYTES(256, 6)], transmit[EC_TRANSMIT_BYTES(512)], receive[EC_PACKET_BYTES(256)];
static struct ec_stream acc;
static struct ec_node node;

void sensor_ready(const int16_t sample[3], uint64_t time_us) /* from the interrupt */
{
    (void)ec_stream_push(&acc, sample, time_us); /* a full buffer drops and counts it; STATUS says so */
}

static enum ec_status start(void) {
    const struct ec_hello hello = {"acc", "g", 1.0 / 4096, 100, 3, EC_DTYPE_INT16, "template 1.0", NULL, 0};
    const struct ec_node_config config = {.write = port_write,
                                          .clock_us = port_clock_us,
                                          .boot = port_boot(),
                                          .delay_us = 50000,
                                          .streams = &acc,
                                          .stream_count = 1,
                                          .transmit = transmit,
                                          .transmit_bytes = sizeof transmit,
                                          .receive = receive,
                                          .receive_bytes = sizeof receive};
    enum ec_status status = ec_stream_init(&acc, &hello, waiting, sizeof waiting);

    return status ? status : ec_node_init(&node, &config);
}

int main(void) {
    uint8_t bytes[64];
    uint64_t received_us = 0;
    size_t count;

    port_start();
    if (start()) return 1;
    port_sensor_start();
    for (;;) {
        while ((count = port_read(bytes, sizeof bytes, &received_us)) != 0)
            ec_node_receive(&node, bytes, count, received_us);
        if (ec_node_poll(&node) == EC_NOT_YET) port_wait();
    }
}
