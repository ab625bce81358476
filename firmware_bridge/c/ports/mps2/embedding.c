#include "embedding.h"

#include <string.h>

#include "ec_micro.h"

#define SCRATCH_BYTES 16384u

static uint32_t scratch[SCRATCH_BYTES / 4];
static int16_t whole_window[4096], whole_embedding[EMBEDDING_DIMENSIONS];

enum ec_status embedding_validate(void *user, uint32_t address, uint32_t size) {
    const struct window_shape *shape = user;
    ec_micro model;

    if (ec_micro_open((const uint8_t *)address, size, &model) || strcmp(model.modality, shape->modality) ||
        model.samples != shape->samples || model.channels != shape->channels ||
        model.dimensions != EMBEDDING_DIMENSIONS || ec_micro_scratch_bytes(&model) > sizeof scratch ||
        (uint32_t)model.samples * model.channels > 4096)
        return EC_BAD_MODEL;
    return EC_OK;
}

/* 32767 is 1, and no bit is lost in a float. */
static enum ec_status embed_whole(const ec_micro *model, const float *window, float *embedding) {
    uint32_t values = (uint32_t)model->samples * model->channels;

    for (uint32_t i = 0; i < values; i++) whole_window[i] = ec_micro_quantise(model, window[i]);
    enum ec_status status = ec_micro_embed_i16(model, whole_window, scratch, sizeof scratch, whole_embedding);
    for (uint32_t i = 0; i < EMBEDDING_DIMENSIONS && !status; i++) embedding[i] = (float)whole_embedding[i] / 32767.0f;
    return status;
}

enum ec_status embed(const struct ec_slots *slots, const float *window, float embedding[EMBEDDING_DIMENSIONS]) {
    uint32_t address, size;
    ec_micro model;

    if (ec_slots_model(slots, &address, &size)) return EC_NOT_YET;
    enum ec_status status = ec_micro_open((const uint8_t *)address, size, &model);
    if (status) return status;
    if (model.precision == EC_INT8) return embed_whole(&model, window, embedding);
    return ec_micro_embed_f32(&model, window, scratch, sizeof scratch, embedding);
}
