#include "ec_slots_parts.h"

#include <string.h>

#include "ec_bytes.h"
#include "ec_crc.h"

#define LAYOUT 1u      /* version of what this file writes */
#define READ_BYTES 64u /* of stack, for a look at flash */
#define CRC_AT (EC_RECORD_BYTES - 4u)

/* Place 0 is the BEGIN record, 1 to EC_SWITCH_RECORDS the switch records, then come the marks. */
static uint32_t record_at(const struct ec_slots *s, uint8_t slot, uint32_t place) {
    return s->config.header[slot] + place * EC_RECORD_SPACE(s->config.flash.program_bytes);
}

static uint32_t mark_at(const struct ec_slots *s, uint8_t slot, uint32_t index) {
    return record_at(s, slot, 1 + EC_SWITCH_RECORDS) + index * s->config.flash.program_bytes;
}

static enum ec_status read_flash(const struct ec_slots *s, uint32_t address, uint8_t *bytes, uint32_t count) {
    return s->config.flash.read(s->config.flash.user, address, bytes, count);
}

/* What cannot be read was written: flash with error correction reports a torn unit so. */
static bool blank(const struct ec_slots *s, uint32_t address, uint32_t count) {
    uint8_t bytes[READ_BYTES];

    for (uint32_t done = 0; done < count; done += sizeof bytes) {
        uint32_t part = count - done < sizeof bytes ? count - done : (uint32_t)sizeof bytes;
        if (read_flash(s, address + done, bytes, part)) return false;
        for (uint32_t i = 0; i < part; i++)
            if (bytes[i] != 0xFF) return false;
    }
    return true;
}

/* ---- Records: kind, counter, id, size and CRC of the model, layout, CRC of the record; 4 bytes each, the id 8. ----
 */

static void pack(uint8_t raw[EC_RECORD_BYTES], enum ec_kind kind, const struct ec_record *record) {
    ec_put32(raw, kind);
    ec_put32(raw + 4, record->counter);
    memcpy(raw + 8, record->id, EC_ID_BYTES);
    ec_put32(raw + 16, record->size);
    ec_put32(raw + 20, record->crc);
    ec_put32(raw + 24, LAYOUT);
    ec_put32(raw + CRC_AT, ec_crc32(0, raw, CRC_AT));
}

/* The size is checked here, so that no reader leaves the slot, whatever a CRC let pass. */
static bool read_record(const struct ec_slots *s, uint32_t address, enum ec_kind kind, struct ec_record *record) {
    uint8_t raw[EC_RECORD_BYTES];

    if (read_flash(s, address, raw, sizeof raw) || ec_get32(raw) != kind || ec_get32(raw + 24) != LAYOUT ||
        ec_get32(raw + CRC_AT) != ec_crc32(0, raw, CRC_AT))
        return false;
    record->counter = ec_get32(raw + 4);
    memcpy(record->id, raw + 8, EC_ID_BYTES);
    record->size = ec_get32(raw + 16);
    record->crc = ec_get32(raw + 20);
    return record->size >= 1 && record->size <= s->config.data_bytes;
}

static enum ec_status write_record(const struct ec_slots *s, uint32_t address, enum ec_kind kind,
                                   const struct ec_record *record) {
    uint32_t unit = s->config.flash.program_bytes;
    uint8_t raw[EC_RECORD_BYTES];

    pack(raw, kind, record);
    for (uint32_t done = 0; done < sizeof raw; done += unit) {
        uint32_t part = sizeof raw - done < unit ? (uint32_t)sizeof raw - done : unit;
        memset(s->config.unit, 0xFF, unit);
        memcpy(s->config.unit, raw + done, part);
        if (s->config.flash.program(s->config.flash.user, address + done, s->config.unit)) return EC_FLASH;
    }
    return EC_OK;
}

bool ec_slot_begun(const struct ec_slots *s, uint8_t slot, struct ec_record *record) {
    return read_record(s, record_at(s, slot, 0), EC_RECORD_BEGIN, record);
}

uint32_t ec_slot_switched(const struct ec_slots *s, uint8_t slot, struct ec_record *record) {
    struct ec_record found;
    uint32_t copies = 0;

    for (uint32_t place = 1; place <= EC_SWITCH_RECORDS; place++) {
        if (!read_record(s, record_at(s, slot, place), EC_RECORD_SWITCH, &found)) continue;
        if (copies != 0 && found.counter == record->counter) {
            copies++;
        } else if (copies == 0 || found.counter > record->counter) {
            *record = found;
            copies = 1;
        }
    }
    return copies;
}

static bool switch_free(const struct ec_slots *s, uint8_t slot, uint32_t place) {
    return blank(s, record_at(s, slot, place), EC_RECORD_SPACE(s->config.flash.program_bytes));
}

uint32_t ec_slot_free_switches(const struct ec_slots *s, uint8_t slot) {
    uint32_t count = 0;

    for (uint32_t place = 1; place <= EC_SWITCH_RECORDS; place++) count += switch_free(s, slot, place);
    return count;
}

enum ec_status ec_slot_switch(const struct ec_slots *s, uint8_t slot, const struct ec_record *record) {
    struct ec_record back;

    for (uint32_t place = 1; place <= EC_SWITCH_RECORDS; place++) {
        uint32_t address = record_at(s, slot, place);
        if (!switch_free(s, slot, place)) continue;
        if (write_record(s, address, EC_RECORD_SWITCH, record) == EC_OK &&
            read_record(s, address, EC_RECORD_SWITCH, &back) && back.counter == record->counter)
            return EC_OK;
    }
    return EC_FLASH;
}

enum ec_status ec_slot_forget(const struct ec_slots *s, uint8_t slot) {
    return s->config.flash.erase(s->config.flash.user, s->config.header[slot]);
}

enum ec_status ec_slot_begin(const struct ec_slots *s, uint8_t slot, const struct ec_record *record) {
    enum ec_status status = ec_slot_forget(s, slot);
    return status ? status : write_record(s, record_at(s, slot, 0), EC_RECORD_BEGIN, record);
}

/* ---- Marks: one unit for each stride of data, written when that is there. Whatever is not blank marks, a torn one
 * too. ---- */

uint32_t ec_slot_progress(const struct ec_slots *s, uint8_t slot, uint32_t size) {
    uint32_t index = 0;

    while (index * s->stride < size && !blank(s, mark_at(s, slot, index), s->config.flash.program_bytes)) index++;
    return index * s->stride < size ? index * s->stride : size;
}

enum ec_status ec_slot_mark(const struct ec_slots *s, uint8_t slot, uint32_t next) {
    uint32_t unit = s->config.flash.program_bytes, address = mark_at(s, slot, (next - 1) / s->stride);

    if (!blank(s, address,
               unit)) /* a mark that was torn before, and read as blank then: a unit is programmed once only */
        return EC_OK;
    memset(s->config.unit, 0, unit);
    return s->config.flash.program(s->config.flash.user, address, s->config.unit);
}

/* ---- Data ---- */

enum ec_status ec_slot_check(const struct ec_slots *s, uint8_t slot, const struct ec_record *record) {
    uint8_t bytes[READ_BYTES];
    uint32_t crc = 0;

    for (uint32_t done = 0; done < record->size; done += sizeof bytes) {
        uint32_t left = record->size - done, part = left < sizeof bytes ? left : (uint32_t)sizeof bytes;
        if (read_flash(s, s->config.data[slot] + done, bytes, part)) return EC_BAD_CRC;
        crc = ec_crc32(crc, bytes, part);
    }
    return crc == record->crc ? EC_OK : EC_BAD_CRC;
}
