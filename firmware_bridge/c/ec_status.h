/* What every function of the edge-cmcl C library answers. */
#ifndef EC_STATUS_H
#define EC_STATUS_H

typedef enum ec_status {
    EC_OK = 0,
    EC_BAD_ARGUMENT, /* a null pointer, or a buffer that is too small or not aligned */
    EC_BAD_FORMAT,   /* bytes that are not what they should be: another kind or version, or damaged */
    EC_BAD_VALUE,    /* a sample that is not finite, or so large that a sum of its squares is not */
    EC_UNSUPPORTED   /* this build or machine cannot do it */
} ec_status;

#endif
