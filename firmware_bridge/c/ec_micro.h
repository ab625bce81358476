/* The micro model: embeds windows of one sensor, and names the nearest label. Format and arithmetic: ../BLOB.md.
 *
 * No memory is allocated. The blob is used where it lies (flash, or a buffer), 4-byte aligned, and must stay there
 * unchanged as long as the model is used. `ec_micro_open` checks all of it once; nothing later can read outside of it.
 * The floating-point functions give the same bits as the NumPy reference if compiled with -ffp-contract=off, and find
 * what is not finite only without -ffast-math.
 *
 *     static uint32_t scratch[EC_MODEL_GYRO_SCRATCH_BYTES / 4];
 *     static int16_t window[EC_MODEL_GYRO_SAMPLES * EC_MODEL_GYRO_CHANNELS], embedding[EC_MODEL_GYRO_DIMENSIONS];
 *
 *     if (ec_micro_open((const uint8_t *)ec_model_gyro, EC_MODEL_GYRO_BYTES, &model) == EC_OK) {
 *         window[i++] = ec_micro_quantise(&model, value);         // as values come, sample by sample
 *         ec_micro_embed_i16(&model, window, scratch, sizeof scratch, embedding);    // when it is full
 *         ec_micro_nearest_i16(&model, embedding, &label, &cosine);
 *         puts(ec_micro_label(&model, label));
 *     }
 *
 * with the header that `edge-cmcl blob --c-header` writes, or with a blob that was received into a flash slot.
 */
#ifndef EC_MICRO_H
#define EC_MICRO_H

#include "ec_status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ec_precision { EC_FLOAT32 = 0, EC_INT8 = 1 } ec_precision;

/* An opened model: pointers into the blob. Of each pair float / integer, the one of its precision is set. */
typedef struct ec_micro {
    ec_precision precision;
    uint16_t channels;   /* C */
    uint16_t samples;    /* T, of a window */
    uint16_t width;      /* w = 3 * kernels */
    uint16_t dimensions; /* d, of an embedding */
    uint16_t labels;     /* L, 0 where none were learned */
    int16_t input_shift; /* int8: one step of a sample is 2^-input_shift in the encoder's unit */
    float steps;         /* 2^input_shift */
    float scale;         /* the encoder sees value / scale */
    float label_step;
    uint32_t taps;
    uint32_t name_bytes;
    const char *modality;      /* a C string */
    const uint8_t *generation; /* 32 bytes: SHA-256 of the manifest that the model was made from */
    const uint8_t *kernels;
    const uint16_t *tap_channels;
    const void *weights;
    const void *biases;
    const void *means;
    const void *factors;
    const uint8_t *shifts;
    const void *head;
    const uint16_t *row_factors;
    const void *label_embeddings;
    const uint32_t *name_ends;
    const char *names;
} ec_micro;

/* Checks the `size` bytes at `blob` and opens them. `model` is only valid after EC_OK.
 * EC_BAD_ARGUMENT: not aligned to 4 bytes; EC_BAD_FORMAT: anything of BLOB.md does not hold;
 * EC_UNSUPPORTED: a big-endian machine. */
ec_status ec_micro_open(const uint8_t *blob, size_t size, ec_micro *model);

/* Bytes of scratch that embedding a window takes, 4-byte aligned: 2.6 kB for int8 of 3 channels, 128 samples, width 252
 * and dimension 256. Nothing of it is needed between calls. */
size_t ec_micro_scratch_bytes(const ec_micro *model);

/* Embeds one window, `samples` x `channels` values in the recorded unit, sample by sample. `embedding` takes
 * `dimensions` floats of unit length, or zeros where no feature stands out. EC_BAD_ARGUMENT: a model of int8, or too
 * small a scratch; EC_BAD_VALUE: a value is not finite or too large. */
ec_status ec_micro_embed_f32(const ec_micro *model, const float *window, void *scratch, size_t scratch_bytes,
                             float *embedding);

/* Returns one value in the recorded unit as a sample of an int8 model; saturates at +-32767, NaN gives 0. */
int16_t ec_micro_quantise(const ec_micro *model, float value);

/* Embeds one window of such samples, in integers only. `embedding` takes `dimensions` numbers; 32767 is 1.
 * EC_BAD_ARGUMENT: a model of float32, or too small a scratch. */
ec_status ec_micro_embed_i16(const ec_micro *model, const int16_t *window, void *scratch, size_t scratch_bytes,
                             int16_t *embedding);

/* Finds the label nearest to an embedding, and its cosine. Either result may be null.
 * EC_BAD_ARGUMENT: a model of the other precision, or without labels. */
ec_status ec_micro_nearest_f32(const ec_micro *model, const float *embedding, uint16_t *label, float *cosine);
ec_status ec_micro_nearest_i16(const ec_micro *model, const int16_t *embedding, uint16_t *label, float *cosine);

/* Returns the name of a label as a UTF-8 C string, null beyond the last. */
const char *ec_micro_label(const ec_micro *model, uint16_t label);

#ifdef __cplusplus
}
#endif

#endif
