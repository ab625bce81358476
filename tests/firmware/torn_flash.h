/* Emulated flash with all that NOR flash may do when power fails: a prefix of a unit is programmed, the byte after it
 * is garbage, and the torn bits may read differently at each start, or not at all; a torn erase leaves any mixture. It
 * ends the process where the library programs what is not erased. Of slots_power.c.
 */
#ifndef TORN_FLASH_H
#define TORN_FLASH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ec_status.h"

#define FLASH_MAX 300000u

enum style { NOTHING_DONE, PREFIX, GARBAGE, WEAK, UNREADABLE, ALL_DONE, STYLES };

static struct chip {
    uint8_t bytes[FLASH_MAX];                    /* what reads */
    uint8_t before[FLASH_MAX], after[FLASH_MAX]; /* of torn bytes: what was, and what was to be */
    uint8_t torn[FLASH_MAX];
    uint32_t size, unit, header_bytes, erase_bytes, header_end; /* headers lie before `header_end` */
    uint32_t calls, cut_at;                                     /* the `cut_at`th call from now on is cut; 0: none */
    enum style style;
    uint32_t torn_from, torn_to; /* torn bytes lie between */
    int dead;                    /* no power: everything fails until the next start */
    int failing;                 /* the cut call fails, but power stays */
} chip;

static uint32_t seed;

static uint32_t draw(void) /* xorshift32 (G. Marsaglia, 2003) */
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static void demand(int holds, const char *what) {
    if (!holds) {
        printf("%s (cut at call %u, style %d)\n", what, chip.cut_at, chip.style);
        exit(1);
    }
}

static enum ec_status chip_read(void *user, uint32_t address, uint8_t *bytes, uint32_t count) {
    (void)user;
    demand(address + count <= chip.size, "read outside of the flash");
    if (chip.dead) return EC_FLASH;
    for (uint32_t i = 0; i < count; i++)
        if (chip.torn[address + i] == UNREADABLE) return EC_FLASH;
    memcpy(bytes, chip.bytes + address, count);
    return EC_OK;
}

/* Puts the torn bytes of one unit as they may read: as before, as was wanted, or of each bit either. */
static void waver(uint32_t at) {
    uint32_t how = draw() % 4;

    for (uint32_t i = at; i < at + chip.unit; i++) {
        uint8_t mask = how == 0 ? 0 : how == 1 ? 0xFF : (uint8_t)draw();
        if (chip.torn[i]) chip.bytes[i] = (uint8_t)((chip.before[i] & ~mask) | (chip.after[i] & mask));
    }
}

/* Marks what was to be changed as torn. */
static void tear(uint32_t address, uint32_t count) {
    memset(chip.torn + address, chip.style, count);
    chip.torn_from = address < chip.torn_from ? address : chip.torn_from;
    chip.torn_to = address + count > chip.torn_to ? address + count : chip.torn_to;
    for (uint32_t i = 0; i < count; i += chip.unit) waver(address + i);
}

/* Changes `count` bytes to `after`, as far as power lasts. */
static enum ec_status change(uint32_t address, uint32_t count) {
    uint32_t done = count;

    memcpy(chip.before + address, chip.bytes + address, count);
    if (++chip.calls == chip.cut_at) {
        chip.dead = !chip.failing;
        done = chip.style == NOTHING_DONE ? 0 : chip.style == ALL_DONE ? count : draw() % count;
    }
    memcpy(chip.bytes + address, chip.after + address, done);
    memset(chip.torn + address, 0, done);
    if (chip.calls != chip.cut_at) return EC_OK;
    if (chip.style == GARBAGE && done < count) /* bits that nobody wanted changed, too */
        chip.bytes[address + done] &= (uint8_t)draw();
    if (chip.style == WEAK || chip.style == UNREADABLE) tear(address, count);
    return EC_FLASH;
}

static enum ec_status chip_program(void *user, uint32_t address, const uint8_t *unit) {
    (void)user;
    demand(address % chip.unit == 0 && address + chip.unit <= chip.size, "a unit was programmed that is none");
    if (chip.dead) return EC_FLASH;
    for (uint32_t i = 0; i < chip.unit; i++)
        demand(chip.bytes[address + i] == 0xFF && chip.torn[address + i] != UNREADABLE, "a unit was programmed twice");
    memcpy(chip.after + address, unit, chip.unit);
    return change(address, chip.unit);
}

static enum ec_status chip_erase(void *user, uint32_t address) {
    uint32_t block = address < chip.header_end ? chip.header_bytes : chip.erase_bytes;

    (void)user;
    demand((address < chip.header_end ? address : address - chip.header_end) % block == 0, "half a block was erased");
    if (chip.dead) return EC_FLASH;
    memset(chip.after + address, 0xFF, block);
    return change(address, block);
}

/* Power comes: torn bits read as they like. */
static void power_on(void) {
    chip.dead = 0;
    for (uint32_t i = chip.torn_from; i < chip.torn_to; i += chip.unit)
        if (chip.torn[i] == WEAK) waver(i);
}

#endif
