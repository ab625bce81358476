/* What a board must give to main.c: write these in a port.c of your own. PORTING.md says in which order, and how to
 * test each. */
#ifndef PORT_H
#define PORT_H

#include <stddef.h>
#include <stdint.h>

#include "ec_slots.h"

/* Starts clocks and line. Called first. */
void port_start(void);

/* Microseconds since the reset, never going back; from the main loop and from interrupts. */
uint64_t port_clock_us(void *user);

/* Takes of `count` bytes for the line what it can without waiting; returns how many. */
size_t port_write(void *user, const uint8_t *bytes, size_t count);

/* Returns how many bytes came, at most `capacity`; sets when the last of them came. */
size_t port_read(uint8_t *bytes, size_t capacity, uint64_t *received_us);

/* Another number after every reset, not 0: a counter in flash, or random. */
uint32_t port_boot(void);

/* Starts the sensor, whose interrupt calls sensor_ready() with each sample. main.c has that. */
void port_sensor_start(void);
void sensor_ready(const int16_t sample[3], uint64_t time_us);

/* Sleeps until an interrupt, 10 ms at most: HELLO, STATUS and samples that wait for others have their times. */
void port_wait(void);

#endif
