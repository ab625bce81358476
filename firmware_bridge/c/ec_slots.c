#include "ec_slots.h"

#include <string.h>

#include "ec_bytes.h"
#include "ec_slots_parts.h"

enum op { BEGIN = 1, CHUNK, COMMIT, QUERY, ANSWER };

#define ID_AT 4u
#define BEGIN_BYTES 20u
#define CHUNK_BYTES 16u /* before its data */
#define COMMIT_BYTES 12u
#define QUERY_BYTES 4u

/* ---- Answers ---- */

static void put_answer(uint8_t *answer, enum ec_state state, const uint8_t *id, uint32_t next) {
    ec_put32(answer, ANSWER);
    ec_put32(answer + 4, state);
    memcpy(answer + 8, id, EC_ID_BYTES);
    ec_put32(answer + 16, next);
}

static void answer_state(const struct ec_slots *s, uint8_t *answer) {
    static const uint8_t none[EC_ID_BYTES];

    if (s->receiving)
        put_answer(answer, EC_STATE_RECEIVING, s->coming.id, s->next);
    else if (s->active != EC_NO_SLOT)
        put_answer(answer, EC_STATE_ACTIVE, s->model.id, 0);
    else
        put_answer(answer, EC_STATE_NONE, none, 0);
}

/* Ends what is under way; a repeated request is told the same again. */
static void refuse(struct ec_slots *s, enum ec_state state, const uint8_t *id, uint8_t *answer) {
    s->receiving = false;
    s->refusal = state;
    memcpy(s->refused, id, EC_ID_BYTES);
    put_answer(answer, state, id, 0);
}

static bool under_way(const struct ec_slots *s, const uint8_t *id) {
    return s->receiving && memcmp(s->coming.id, id, EC_ID_BYTES) == 0;
}

static void answer_stranger(const struct ec_slots *s, const uint8_t *id, uint8_t *answer) {
    if (!s->receiving && s->refusal != EC_STATE_RECEIVING && memcmp(s->refused, id, EC_ID_BYTES) == 0)
        put_answer(answer, s->refusal, id, 0);
    else
        answer_state(s, answer);
}

/* ---- Requests ---- */

static bool same_model(const struct ec_record *a, const struct ec_record *b) {
    return memcmp(a->id, b->id, EC_ID_BYTES) == 0 && a->size == b->size && a->crc == b->crc;
}

/* Goes on with what a slot holds of the wanted model: after a reset, or after the host had begun another one. With
 * fewer than two free switch records it would end where it could not be used. */
static bool resumed(struct ec_slots *s, const struct ec_record *wanted) {
    struct ec_record held;

    for (uint8_t slot = 0; slot < 2; slot++) {
        if (slot == s->active || !ec_slot_begun(s, slot, &held) || !same_model(&held, wanted) ||
            ec_slot_free_switches(s, slot) < 2)
            continue;
        ec_slots_resume(s, slot, wanted);
        return true;
    }
    return false;
}

static enum ec_status begin_anew(struct ec_slots *s, const struct ec_record *wanted) {
    uint8_t slot = s->active == 0 ? 1 : 0;

    if (ec_slots_settle(s) || ec_slot_begin(s, slot, wanted)) return EC_FLASH;
    s->receiving = true;
    s->target = slot;
    s->coming = *wanted;
    s->next = 0;
    return EC_OK;
}

static void begin(struct ec_slots *s, const struct ec_record *wanted, uint8_t *answer) {
    bool goes_on = s->receiving && same_model(&s->coming, wanted);

    s->refusal = EC_STATE_RECEIVING;
    if (s->active != EC_NO_SLOT && same_model(&s->model, wanted)) {
        s->receiving = false;
    } else if (wanted->size > s->config.data_bytes) {
        refuse(s, EC_STATE_TOO_LARGE, wanted->id, answer);
        return;
    } else if (wanted->size == 0) {
        refuse(s, EC_STATE_BAD_MODEL, wanted->id, answer);
        return;
    } else if (!goes_on && !resumed(s, wanted) && begin_anew(s, wanted)) {
        refuse(s, EC_STATE_FLASH, wanted->id, answer);
        return;
    }
    answer_state(s, answer);
}

/* Programs the unit that ends at `next`, filled up with 0xFF at the end of the model. A block is erased right before
 * its first unit. Records and marks use the same buffer: they are written only when no part of a unit waits in it. */
static enum ec_status program_unit(struct ec_slots *s) {
    const struct ec_slots_config *c = &s->config;
    uint32_t unit = c->flash.program_bytes, start = (s->next - 1) / unit * unit, filled = s->next - start;
    uint32_t address = c->data[s->target] + start;

    memset(c->unit + filled, 0xFF, unit - filled);
    if (start % c->erase_bytes == 0 && c->flash.erase(c->flash.user, address)) return EC_FLASH;
    if (c->flash.program(c->flash.user, address, c->unit)) return EC_FLASH;
    if (s->next % s->stride == 0 || s->next == s->coming.size) return ec_slot_mark(s, s->target, s->next);
    return EC_OK;
}

static enum ec_status take(struct ec_slots *s, const uint8_t *bytes, size_t count) {
    uint32_t unit = s->config.flash.program_bytes;
    enum ec_status status = EC_OK;

    for (size_t i = 0; i < count && !status; i++) {
        s->config.unit[s->next % unit] = bytes[i];
        s->next++;
        if (s->next % unit == 0 || s->next == s->coming.size) status = program_unit(s);
    }
    return status;
}

static void chunk(struct ec_slots *s, const uint8_t *request, size_t size, uint8_t *answer) {
    const uint8_t *id = request + ID_AT;
    size_t count = size - CHUNK_BYTES;

    if (!under_way(s, id)) {
        answer_stranger(s, id, answer);
    } else if (ec_get32(request + 12) == s->next && count <= s->coming.size - s->next &&
               take(s, request + CHUNK_BYTES, count)) {
        refuse(s, EC_STATE_FLASH, id, answer);
    } else {
        answer_state(s, answer);
    }
}

/* All is in flash. First it is checked there, then one record makes it the model in use. */
static enum ec_state switch_over(struct ec_slots *s) {
    struct ec_record record = s->coming;
    enum ec_status status = ec_slots_runnable(s, s->target, &record);

    if (status) {
        (void)ec_slot_forget(s, s->target); /* else a repeated BEGIN would go on at its end; the answer is the same */
        return status == EC_BAD_CRC ? EC_STATE_BAD_CRC : EC_STATE_BAD_MODEL;
    }
    record.counter = s->counter + 1;
    if (ec_slot_switch(s, s->target, &record)) return EC_STATE_FLASH;
    s->counter = record.counter;
    s->active = s->target;
    s->model = record;
    s->receiving = false;
    s->settled = false;
    (void)ec_slots_settle(s); /* the switch is done; where its second record failed, the next BEGIN tries again */
    return EC_STATE_ACTIVE;
}

static void commit(struct ec_slots *s, const uint8_t *id, uint8_t *answer) {
    if (!under_way(s, id)) {
        answer_stranger(s, id, answer);
        return;
    }
    enum ec_state state = s->next < s->coming.size ? EC_STATE_RECEIVING : switch_over(s);
    if (state == EC_STATE_RECEIVING || state == EC_STATE_ACTIVE)
        answer_state(s, answer);
    else
        refuse(s, state, id, answer);
}

enum ec_status ec_slots_request(struct ec_slots *s, const uint8_t *request, size_t size,
                                uint8_t answer[EC_ANSWER_BYTES]) {
    struct ec_record wanted = {0};
    uint8_t op = size >= QUERY_BYTES ? request[0] : 0;

    if (op == BEGIN && size == BEGIN_BYTES) {
        memcpy(wanted.id, request + ID_AT, EC_ID_BYTES);
        wanted.size = ec_get32(request + 12);
        wanted.crc = ec_get32(request + 16);
        begin(s, &wanted, answer);
    } else if (op == CHUNK && size > CHUNK_BYTES) {
        chunk(s, request, size, answer);
    } else if (op == COMMIT && size == COMMIT_BYTES) {
        commit(s, request + ID_AT, answer);
    } else if (op == QUERY && size == QUERY_BYTES) {
        answer_state(s, answer);
    } else {
        return EC_BAD_ARGUMENT;
    }
    return EC_OK;
}

enum ec_status ec_slots_model(const struct ec_slots *s, uint32_t *address, uint32_t *size) {
    if (s->active == EC_NO_SLOT) return EC_NOT_YET;
    *address = s->config.data[s->active];
    *size = s->model.size;
    return EC_OK;
}
