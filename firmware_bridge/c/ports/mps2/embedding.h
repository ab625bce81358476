/* The second stream of the board: embeddings of its windows by the micro model in use. In builds with MICRO=1. */
#ifndef EC_MPS2_EMBEDDING_H
#define EC_MPS2_EMBEDDING_H

#include <stdint.h>

#include "ec_slots.h"

#define EMBEDDING_DIMENSIONS 256u /* HELLO says it once: a model of another dimension is refused */

/* What of a model must fit this firmware. */
struct window_shape {
    const char *modality;
    uint16_t samples, channels;
};

/* For `validate` of the slots; `user` is a struct window_shape. */
enum ec_status embedding_validate(void *user, uint32_t address, uint32_t size);

/* Embeds one window, samples x channels values in the recorded unit. EC_NOT_YET: no model is in use. */
enum ec_status embed(const struct ec_slots *slots, const float *window, float embedding[EMBEDDING_DIMENSIONS]);

#endif
