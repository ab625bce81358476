/* ADAPTER: takes a micro model in chunks into one of two flash slots and switches to it (SPEC.md, "ADAPTER"). Power may
 * fail at any moment: one valid model always answers, the old or the new. Layout in flash, and why its order is safe:
 * SLOTS.md. */
#ifndef EC_SLOTS_H
#define EC_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ec_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EC_ANSWER_BYTES 20u
#define EC_ID_BYTES 8u
#define EC_NO_SLOT 255u

enum ec_state {
    EC_STATE_RECEIVING, /* this and the next three words: SPEC.md, "ADAPTER" */
    EC_STATE_ACTIVE,
    EC_STATE_NONE,
    EC_STATE_TOO_LARGE,
    EC_STATE_BAD_CRC,
    EC_STATE_BAD_MODEL,
    EC_STATE_FLASH,
    EC_STATE_BUSY
};

/* NOR flash, as in and beside microcontrollers: an erase sets a block to 0xFF, programming takes bits from 1 to 0. Each
 * returns EC_OK or EC_FLASH. */
struct ec_flash {
    enum ec_status (*read)(void *user, uint32_t address, uint8_t *bytes, uint32_t count);
    enum ec_status (*program)(void *user, uint32_t address, const uint8_t *unit); /* one erased unit, once */
    enum ec_status (*erase)(void *user, uint32_t address);                        /* the block that begins there */
    void *user;
    uint32_t program_bytes; /* of a unit: 1 to 256, a power of two */
};

struct ec_slots_config {
    struct ec_flash flash;
    uint32_t header[2];    /* address of each slot's header: an erase block of its own */
    uint32_t header_bytes; /* of that block; EC_HEADER_MIN_BYTES at least */
    uint32_t data[2];      /* address of each slot's data: whole erase blocks */
    uint32_t data_bytes;   /* largest model, a multiple of `erase_bytes` */
    uint32_t erase_bytes;  /* of the erase blocks of the data, a multiple of `program_bytes` */
    uint8_t *unit;         /* `program_bytes` bytes of RAM, the library's from here on */
    /* Returns EC_OK where the `size` bytes at `address` are a model that this firmware runs; asked before a switch, and
     * at start. */
    enum ec_status (*validate)(void *user, uint32_t address, uint32_t size);
    void *user; /* of `validate` */
};

#define EC_RECORD_BYTES 32u
#define EC_SWITCH_RECORDS 8u
#define EC_RECORD_SPACE(unit) ((EC_RECORD_BYTES + (unit)-1u) / (unit) * (unit))
#define EC_HEADER_MIN_BYTES(unit) ((1u + EC_SWITCH_RECORDS) * EC_RECORD_SPACE(unit) + (unit))

/* A model, as the records in flash tell of it. */
struct ec_record {
    uint32_t counter; /* of switches; the higher one is in use */
    uint8_t id[EC_ID_BYTES];
    uint32_t size, crc;
};

struct ec_slots {
    struct ec_slots_config config;
    uint32_t stride;  /* bytes of data between two marks of progress */
    uint32_t counter; /* highest seen in flash */
    uint8_t active;   /* slot in use, or EC_NO_SLOT */
    bool settled;     /* a record that makes it so was written, and read back, since power came */
    struct ec_record model;
    bool receiving; /* a model is under way: */
    uint8_t target; /* into this slot, */
    struct ec_record coming;
    uint32_t next;                /* this byte of it is wanted next */
    enum ec_state refusal;        /* how the last transfer ended, if badly (else EC_STATE_RECEIVING): */
    uint8_t refused[EC_ID_BYTES]; /* a repeated COMMIT is answered the same */
};

/* Finds the model in use and what is under way. EC_BAD_ARGUMENT: the layout breaks what is said above. Takes as long as
 * reading both models. */
enum ec_status ec_slots_open(struct ec_slots *slots, const struct ec_slots_config *config);

/* Takes the payload of an ADAPTER frame and writes the payload of the answer. A chunk may erase and program; a COMMIT
 * reads the whole model. EC_BAD_ARGUMENT: it is no request, and there is no answer. */
enum ec_status ec_slots_request(struct ec_slots *slots, const uint8_t *request, size_t size,
                                uint8_t answer[EC_ANSWER_BYTES]);

/* Where the model in use lies in flash: it stays there until the BEGIN after the next COMMIT. EC_NOT_YET: there is
 * none. */
enum ec_status ec_slots_model(const struct ec_slots *slots, uint32_t *address, uint32_t *size);

#ifdef __cplusplus
}
#endif

#endif
