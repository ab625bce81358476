#include "ec_slots.h"
#include "ec_slots_parts.h"

static bool layout_fits(const struct ec_slots_config *c) {
    uint32_t unit = c->flash.program_bytes;

    return unit >= 1 && unit <= 256 && (unit & (unit - 1)) == 0 && c->header_bytes >= EC_HEADER_MIN_BYTES(unit) &&
           c->erase_bytes >= unit && c->erase_bytes % unit == 0 && c->data_bytes >= c->erase_bytes &&
           c->data_bytes % c->erase_bytes == 0 && c->data_bytes <= INT32_MAX;
}

/* As many erase blocks of data to a mark as the room for marks in the header demands; at least one. */
static uint32_t stride_of(const struct ec_slots_config *c) {
    uint32_t unit = c->flash.program_bytes, blocks = c->data_bytes / c->erase_bytes;
    uint32_t marks = (c->header_bytes - EC_HEADER_MIN_BYTES(unit)) / unit + 1;

    return (blocks + marks - 1) / marks * c->erase_bytes;
}

enum ec_status ec_slots_runnable(const struct ec_slots *s, uint8_t slot, const struct ec_record *record) {
    enum ec_status status = ec_slot_check(s, slot, record);
    return status ? status : s->config.validate(s->config.user, s->config.data[slot], record->size);
}

enum ec_status ec_slots_settle(struct ec_slots *s) {
    if (s->settled || s->active == EC_NO_SLOT) return EC_OK;
    if (ec_slot_free_switches(s, s->active) != 0 && ec_slot_switch(s, s->active, &s->model)) return EC_FLASH;
    s->settled = true;
    return EC_OK;
}

/* The model in use is that of the newest switch record whose data is whole. Returns how many copies of that record
 * there are. */
static uint32_t find_active(struct ec_slots *s) {
    struct ec_record found;
    uint32_t active_copies = 0;

    s->active = EC_NO_SLOT;
    for (uint8_t slot = 0; slot < 2; slot++) {
        uint32_t copies = ec_slot_switched(s, slot, &found);
        if (copies == 0) continue;
        s->counter = found.counter > s->counter ? found.counter : s->counter;
        if ((s->active != EC_NO_SLOT && found.counter < s->model.counter) || ec_slots_runnable(s, slot, &found))
            continue;
        s->active = slot;
        s->model = found;
        active_copies = copies;
    }
    return active_copies;
}

void ec_slots_resume(struct ec_slots *s, uint8_t slot, const struct ec_record *record) {
    s->receiving = true;
    s->target = slot;
    s->coming = *record;
    s->next = ec_slot_progress(s, slot, record->size);
}

/* A slot that was begun and never switched to is under way. */
static void find_begun(struct ec_slots *s) {
    struct ec_record begun, switched;

    for (uint8_t slot = 0; slot < 2 && !s->receiving; slot++)
        if (slot != s->active && ec_slot_switched(s, slot, &switched) == 0 && ec_slot_begun(s, slot, &begun))
            ec_slots_resume(s, slot, &begun);
}

enum ec_status ec_slots_open(struct ec_slots *s, const struct ec_slots_config *config) {
    if (!layout_fits(config)) return EC_BAD_ARGUMENT;
    *s = (struct ec_slots){.config = *config, .stride = stride_of(config)};
    uint32_t copies = find_active(s);
    find_begun(s);
    if (copies == 1) /* power failed between the two; where this fails, the next BEGIN tries again, and says so */
        (void)ec_slots_settle(s);
    return EC_OK;
}
