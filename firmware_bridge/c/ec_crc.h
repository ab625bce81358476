/* CRC-32 as in IEEE 802.3 and zlib (SPEC.md, "Header"). */
#ifndef EC_CRC_H
#define EC_CRC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Returns the CRC-32 of what `crc` was the CRC-32 of (0: of nothing) with `count` bytes behind it. */
uint32_t ec_crc32(uint32_t crc, const uint8_t *bytes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
