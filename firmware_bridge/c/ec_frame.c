#include "ec_frame.h"

size_t ec_dtype_bytes(uint8_t dtype) {
    static const uint8_t bytes[] = {0, 1, 1, 2, 2, 4, 4};
    return dtype < sizeof bytes ? bytes[dtype] : 0;
}

bool ec_header_fits(const struct ec_header *header, size_t size) {
    if (size > EC_MAX_PAYLOAD) return false;
    if (header->type != EC_TYPE_DATA) return header->dtype == 0 && header->samples == 0 && header->channels == 0;
    /* 65535 x 65535 x 4 leaves 32 bits: two products of 16 by 16 bits at most, each compared before the next. */
    uint32_t values = (uint32_t)header->samples * header->channels;
    size_t bytes = ec_dtype_bytes(header->dtype);
    return header->stream != 0 && bytes != 0 && values != 0 && values <= EC_MAX_PAYLOAD && values * bytes == size;
}
