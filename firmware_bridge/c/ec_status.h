/* What every function of the library that can fail returns. 0 is success, so `if (status)` reads as a failure. */
#ifndef EC_STATUS_H
#define EC_STATUS_H

typedef enum ec_status {
    EC_OK = 0,
    EC_NOT_YET,      /* nothing is wrong: there is nothing to do yet, or not all of it has come */
    EC_BAD_ARGUMENT, /* the caller left a range that the header states: a number, a buffer's size or alignment */
    EC_TOO_SMALL,    /* a buffer of the caller's cannot take it */
    EC_FULL,         /* a ring buffer has no room: the sample was dropped and counted */
    EC_LINK,         /* what writes to the line failed */
    EC_FLASH,        /* reading, programming or erasing failed */
    EC_BAD_CRC,      /* bytes are not those that were sent */
    EC_BAD_MODEL,    /* bytes are no micro model that this firmware runs */
    EC_BAD_FORMAT,   /* bytes that are not what they should be: another kind or version, or damaged */
    EC_BAD_VALUE,    /* a sample that is not finite, or so large that a sum of its squares is not */
    EC_UNSUPPORTED   /* this build or machine cannot do it */
} ec_status;

#endif
