/* TIME: the answer from which a host learns offset and drift of this device's clock (SPEC.md, "TIME"). */
#ifndef EC_TIME_H
#define EC_TIME_H

#include <stddef.h>
#include <stdint.h>

#include "ec_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EC_PING_BYTES 12u
#define EC_PONG_BYTES 20u

/* Writes into `pong` the answer to the payload of a TIME frame whose delimiter came at `received_us` of the device
 * clock. EC_BAD_ARGUMENT: the payload is no ping. */
enum ec_status ec_time_answer(const uint8_t *ping, size_t size, uint64_t received_us, uint8_t pong[EC_PONG_BYTES]);

#ifdef __cplusplus
}
#endif

#endif
