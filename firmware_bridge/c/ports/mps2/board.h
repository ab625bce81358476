/* What a port gives to the library, for the MPS2 boards: clock, line, sampling interrupt, flash. */
#ifndef EC_MPS2_BOARD_H
#define EC_MPS2_BOARD_H

#include <stddef.h>
#include <stdint.h>

#include "ec_slots.h"

#define BOARD_HZ 25000000u

/* Starts clock and UART. */
void board_start(void);

/* Microseconds since board_start(); from the main loop or an interrupt. To be called once in 171 s at least. */
uint64_t board_clock_us(void);

/* Cycles of 25 MHz, wrapping. */
uint32_t board_cycles(void);

/* Differs after every reset. The word at 0x203FFFF0, which `-device loader` of QEMU can set, is added: for runs that
 * must differ. */
uint32_t board_boot(void);

/* Calls board_sample(), which main.c has, from an interrupt every `cycles` cycles, 1 at least. */
void board_sample_every(uint32_t cycles);
void board_sample(void);

/* Line, without waiting: returns how many bytes were taken. */
size_t board_write(void *user, const uint8_t *bytes, size_t count);

/* Returns how many bytes came, at most up to a delimiter, and when the last delimiter came. */
size_t board_read(uint8_t *bytes, size_t capacity, uint64_t *received_us);

/* Sleeps until there may be something to do. */
void board_wait(void);

/* Flash in memory, with everything of `config` but `validate`. An address is one of memory. */
void board_flash(struct ec_slots_config *config);

#endif
