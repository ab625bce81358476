/* What the two precisions of the micro model share; no part of the interface. */
#ifndef EC_MICRO_INTERNAL_H
#define EC_MICRO_INTERNAL_H

#include "ec_micro.h"

#define EC_MICRO_TAPS 7u
#define EC_MICRO_REACH 24u /* samples that the widest kernel (dilation 8) sees on either side */
#define EC_MICRO_BLOCK 4u  /* outputs computed at once, so that a weight is loaded once for all of them */

/* One kernel, and where its taps begin. */
typedef struct ec_micro_kernel {
    uint32_t index;
    uint32_t dilation;
    uint32_t seen; /* channels */
    uint32_t tap;  /* of all taps, its first one */
} ec_micro_kernel;

/* Returns the first kernel, and the one after `kernel`; past the last, its index is `width / 3`. */
ec_micro_kernel ec_micro_first_kernel(const ec_micro *model);
ec_micro_kernel ec_micro_next_kernel(const ec_micro *model, ec_micro_kernel kernel);

/* Returns the samples of one channel with zeros before, and behind up to what the last block of outputs may reach. */
size_t ec_micro_padded_samples(const ec_micro *model);

/* Returns whether a call's arguments can be used. */
int ec_micro_usable(const ec_micro *model, ec_precision precision, const void *in, const void *scratch,
                    size_t scratch_bytes, const void *out);

#endif
