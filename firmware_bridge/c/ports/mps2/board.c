/* Registers: Arm Cortex-M System Design Kit, Technical Reference Manual (DDI 0479), APB timer and UART; addresses and
 * interrupts: Arm application notes AN385, AN386, AN500. */
#include "board.h"

#include <stdbool.h>
#include <string.h>

struct uart {
    volatile uint32_t data, state, control, interrupt, divider;
};
struct timer {
    volatile uint32_t control, value, reload, interrupt;
};

#define UART ((struct uart *)0x40004000)
#define SAMPLER ((struct timer *)0x40000000)
#define CLOCK ((struct timer *)0x40001000)
#define NVIC_ENABLE (*(volatile uint32_t *)0xE000E100)

enum { UART_FULL = 1, UART_CAME = 2 };                   /* state */
enum { UART_SENDS = 1, UART_TAKES = 2, UART_TELLS = 8 }; /* control */
enum { TIMER_RUNS = 1, TIMER_TELLS = 8 };                /* control */
enum { UART_IRQ = 1 << 0, SAMPLER_IRQ = 1 << 8 };

void uart_received(void);
void sample_tick(void);

static uint32_t irq_off(void) {
    uint32_t masked;

    __asm volatile("mrs %0, primask\ncpsid i" : "=r"(masked)::"memory");
    return masked;
}

static void irq_restore(uint32_t masked) {
    __asm volatile("msr primask, %0" ::"r"(masked) : "memory");
}

/* ---- Clock: a timer counts 32 bits down; what it wraps is added up here. ---- */

uint32_t board_cycles(void) {
    return UINT32_MAX - CLOCK->value;
}

uint64_t board_clock_us(void) {
    static uint64_t passed;      /* cycles */
    uint32_t masked = irq_off(); /* an interrupt must not see one half of the sum */
    uint64_t now;

    passed += (uint32_t)(board_cycles() - (uint32_t)passed);
    now = passed;
    irq_restore(masked);
    return now / (BOARD_HZ / 1000000u);
}

static uint32_t boots __attribute__((section(".kept")));

uint32_t board_boot(void) {
    static uint32_t boot;

    if (boot == 0) boot = ++boots + *(volatile uint32_t *)0x203FFFF0;
    return boot ? boot : 1;
}

/* ---- Sampling ---- */

void board_sample_every(uint32_t cycles) {
    SAMPLER->value = SAMPLER->reload = cycles - 1;
    SAMPLER->control = TIMER_RUNS | TIMER_TELLS;
}

void sample_tick(void) {
    SAMPLER->interrupt = 1;
    board_sample();
}

/* ---- Line: bytes in through an interrupt, with the time of the last delimiter; bytes out as the UART takes them. ----
 */

#define INPUT 4096u /* a power of two */

static volatile uint8_t input[INPUT];
static volatile uint32_t came, taken; /* bytes, wrapping */
static volatile uint64_t delimiter_us;

void uart_received(void) {
    UART->interrupt = 2;
    while (UART->state & UART_CAME) {
        uint8_t byte = (uint8_t)UART->data;
        if (byte == 0) delimiter_us = board_clock_us();
        if (came - taken < INPUT) /* else it is lost, and the frame with it: the host repeats */
            input[came++ % INPUT] = byte;
    }
}

size_t board_read(uint8_t *bytes, size_t capacity, uint64_t *received_us) {
    size_t count = 0;
    uint32_t masked;

    while (count < capacity && taken != came) {
        uint8_t byte = input[taken % INPUT];
        taken++;
        bytes[count++] = byte;
        if (byte == 0) break;
    }
    masked = irq_off();
    *received_us = delimiter_us;
    irq_restore(masked);
    return count;
}

size_t board_write(void *user, const uint8_t *bytes, size_t count) {
    size_t done = 0;

    (void)user;
    while (done < count && !(UART->state & UART_FULL)) UART->data = bytes[done++];
    return done;
}

/* With interrupts masked, so that none comes between the look and the sleep; WFI wakes up even so. BOARD_SPINS: under
 * `-icount sleep=off` QEMU (7.2) passes over every other timer event in a sleep, so firmware that is to run faster than
 * real time must stay awake. */
void board_wait(void) {
#ifndef BOARD_SPINS
    uint32_t masked = irq_off();

    if (came == taken && !(UART->state & UART_FULL)) __asm volatile("wfi" ::: "memory");
    irq_restore(masked);
#endif
}

void board_start(void) {
    CLOCK->reload = CLOCK->value = UINT32_MAX;
    CLOCK->control = TIMER_RUNS;
    UART->divider = 25; /* 1 Mbit/s */
    UART->control = UART_SENDS | UART_TAKES | UART_TELLS;
    NVIC_ENABLE = UART_IRQ | SAMPLER_IRQ;
}

/* ---- Flash: memory that resets leave alone, and that behaves as NOR flash. ---- */

#define BLOCK 4096u
#define UNIT 8u
#define DATA (512u * 1024u) /* a float32 model of the default width has 0.3 MB */

static struct { uint8_t header[2][BLOCK], data[2][DATA]; } flash __attribute__((section(".kept"), aligned(4096)));

static enum ec_status flash_read(void *user, uint32_t address, uint8_t *bytes, uint32_t count) {
    (void)user;
    memcpy(bytes, (const void *)address, count);
    return EC_OK;
}

static enum ec_status flash_program(void *user, uint32_t address, const uint8_t *unit) {
    uint8_t *to = (uint8_t *)address;

    (void)user;
    for (uint32_t i = 0; i < UNIT; i++) to[i] &= unit[i];
    return memcmp(to, unit, UNIT) ? EC_FLASH : EC_OK; /* it was not erased */
}

static enum ec_status flash_erase(void *user, uint32_t address) {
    (void)user;
    memset((void *)address, 0xFF, BLOCK);
    return EC_OK;
}

void board_flash(struct ec_slots_config *config) {
    static uint8_t unit[UNIT];

    *config = (struct ec_slots_config){
        .flash = {flash_read, flash_program, flash_erase, NULL, UNIT},
        .header = {(uint32_t)flash.header[0], (uint32_t)flash.header[1]},
        .header_bytes = BLOCK,
        .data = {(uint32_t)flash.data[0], (uint32_t)flash.data[1]},
        .data_bytes = DATA,
        .erase_bytes = BLOCK,
        .unit = unit,
    };
}
