#include "ec_time.h"

#include <string.h>

#include "ec_bytes.h"

enum { PING = 1, PONG = 2 };

enum ec_status ec_time_answer(const uint8_t *ping, size_t size, uint64_t received_us, uint8_t pong[EC_PONG_BYTES]) {
    if (size != EC_PING_BYTES || ping[0] != PING) return EC_BAD_ARGUMENT;
    ec_put32(pong, PONG);
    memcpy(pong + 4, ping + 4, 8); /* the host's token: echoed, never understood */
    ec_put64(pong + 12, received_us);
    return EC_OK;
}
