/* ports/template on an emulated board: port.h in terms of ports/mps2. */
#include "board.h"
#include "port.h"

void port_start(void) {
    board_start();
}

uint64_t port_clock_us(void *user) {
    (void)user;
    return board_clock_us();
}

size_t port_write(void *user, const uint8_t *bytes, size_t count) {
    return board_write(user, bytes, count);
}

size_t port_read(uint8_t *bytes, size_t capacity, uint64_t *received_us) {
    return board_read(bytes, capacity, received_us);
}

uint32_t port_boot(void) {
    return board_boot();
}

void port_sensor_start(void) {
    board_sample_every(BOARD_HZ / 100);
}

void board_sample(void) {
    static int16_t count;
    const int16_t sample[3] = {count, (int16_t)-count, 4096};

    sensor_ready(sample, board_clock_us());
    count++;
}

void port_wait(void) {
    board_wait();
}
