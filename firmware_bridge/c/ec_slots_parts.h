/* What the files ec_slots*.c share. */
#ifndef EC_SLOTS_PARTS_H
#define EC_SLOTS_PARTS_H

#include "ec_slots.h"

/* ---- ec_slots_flash.c: what lies in a slot: records, marks and data (SLOTS.md). ---- */

enum ec_kind { EC_RECORD_BEGIN = 0x47424345, EC_RECORD_SWITCH = 0x57534345 }; /* "ECBG", "ECSW" */

/* Reads the BEGIN record of a slot; false where there is no valid one. */
bool ec_slot_begun(const struct ec_slots *slots, uint8_t slot, struct ec_record *record);

/* Reads the newest valid switch record of a slot; returns in how many copies it is there, 0: none. */
uint32_t ec_slot_switched(const struct ec_slots *slots, uint8_t slot, struct ec_record *record);

/* Returns how many switch records can still be written. */
uint32_t ec_slot_free_switches(const struct ec_slots *slots, uint8_t slot);

/* Erases the header of a slot and writes a BEGIN record: whatever the slot held is no model any more. */
enum ec_status ec_slot_begin(const struct ec_slots *slots, uint8_t slot, const struct ec_record *record);

/* Erases the header of a slot. */
enum ec_status ec_slot_forget(const struct ec_slots *slots, uint8_t slot);

/* Writes a switch record at the next free place, and reads it back. */
enum ec_status ec_slot_switch(const struct ec_slots *slots, uint8_t slot, const struct ec_record *record);

/* Returns how many bytes of a model of `size` bytes are there for certain, from the marks. */
uint32_t ec_slot_progress(const struct ec_slots *slots, uint8_t slot, uint32_t size);

/* Marks that the data before `next` is there. */
enum ec_status ec_slot_mark(const struct ec_slots *slots, uint8_t slot, uint32_t next);

/* EC_OK where the data has the CRC of `record`; EC_BAD_CRC where not, or where it cannot be read. */
enum ec_status ec_slot_check(const struct ec_slots *slots, uint8_t slot, const struct ec_record *record);

/* ---- ec_slots_open.c: which slot is in use, and what is under way. ---- */

/* EC_OK where the data of a slot is the model of `record`, and the firmware runs it. */
enum ec_status ec_slots_runnable(const struct ec_slots *slots, uint8_t slot, const struct ec_record *record);

/* Writes another switch record of the model in use, unless that was done since power came. A record that power tore may
 * read well today and badly tomorrow, so nothing of the other slot may be erased before. No free place: it was read
 * well at so many starts that it is not torn. */
enum ec_status ec_slots_settle(struct ec_slots *slots);

/* Goes on with the model of `record` where the marks of a slot say that it stands. */
void ec_slots_resume(struct ec_slots *slots, uint8_t slot, const struct ec_record *record);

#endif
