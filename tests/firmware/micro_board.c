/* One micro model on an emulated mps2 board: embeds the window that is linked in, and tells over semihosting what came out,
 * how many instructions it took and how deep the stack went. Built and run by tests/bridge/test_micro_board.py.
 *
 * Instructions are counted by time: under `-icount shift=6` each takes 64 ns, and the timer runs at 25 MHz.
 */
#include "ec_micro.h"

#include <stdio.h>
#include <string.h>

#define TIMER ((volatile uint32_t *)0x40000000) /* CMSDK APB timer 0: control, value, reload */
#define CPACR (*(volatile uint32_t *)0xE000ED88)
#define PAINT 0xA5A5A5A5u
#define LOOPS 100000u

extern const uint8_t slot_a[], slot_a_end[];
extern const float input[];
extern uint32_t data_start[], data_end[], data_source[], bss_start[], bss_end[], stack_top[];

static uint32_t scratch[8192];
static int16_t samples[4096];
static union { float single[1024]; int16_t whole[1024]; uint8_t bytes[4096]; } embedding;

void reset(void);
static const struct {
    const void *stack;
    void (*start)(void);
} vectors __attribute__((section(".vectors"), used)) = {stack_top, reset};

static int host(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void print_number(const char *name, uint32_t value) {
    char digits[12];
    int at = 11;
    digits[at] = 0;
    do digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) > 0);
    host(4, name);
    host(4, " ");
    host(4, digits + at);
    host(4, "\n");
}

static void print_bytes(const char *name, const uint8_t *bytes, size_t size) {
    static const char hex[] = "0123456789abcdef";
    host(4, name);
    host(4, " ");
    for (size_t i = 0; i < size; i++) {
        const char digits[3] = {hex[bytes[i] >> 4], hex[bytes[i] & 15], 0};
        host(4, digits);
    }
    host(4, "\n");
}

static void start_count(void) {
    TIMER[0] = 0;
    TIMER[2] = 0xFFFFFFFFu;
    TIMER[1] = 0xFFFFFFFFu;
    TIMER[0] = 1;
}

/* Returns the instructions since start_count. */
static uint32_t counted(void) { return (uint32_t)((uint64_t)(0xFFFFFFFFu - TIMER[1]) * 5 / 8); }

static void paint_stack(void) {
    uint32_t *top;
    __asm__ volatile("mov %0, sp" : "=r"(top));
    for (volatile uint32_t *word = bss_end; word < top; word++) *word = PAINT;
}

static uint32_t stack_used(void) {
    const uint32_t *word = bss_end;
    while (*word == PAINT) word++;
    return (uint32_t)((const char *)stack_top - (const char *)word);
}

static void run(void) {
    ec_micro m;
    uint16_t label = 0;
    float cosine = 0;
    ec_status status;
    uint32_t opened, embedded, named, quantised = 0;
    start_count();
    for (uint32_t i = LOOPS; i > 0; i--) __asm__ volatile("" : "+r"(i));
    print_number("loop", counted());
    start_count();
    status = ec_micro_open(slot_a, (size_t)(slot_a_end - slot_a), &m);
    opened = counted();
    if (status != EC_OK || ec_micro_scratch_bytes(&m) > sizeof scratch) {
        print_number("status", (uint32_t)status + 100);
        return;
    }
    if (m.precision == EC_INT8) {
        start_count();
        for (uint32_t i = 0; i < (uint32_t)m.samples * m.channels; i++) samples[i] = ec_micro_quantise(&m, input[i]);
        quantised = counted();
        start_count();
        status = ec_micro_embed_i16(&m, samples, scratch, sizeof scratch, embedding.whole);
        embedded = counted();
        start_count();
        if (status == EC_OK) status = ec_micro_nearest_i16(&m, embedding.whole, &label, &cosine);
    } else {
        start_count();
        status = ec_micro_embed_f32(&m, input, scratch, sizeof scratch, embedding.single);
        embedded = counted();
        start_count();
        if (status == EC_OK) status = ec_micro_nearest_f32(&m, embedding.single, &label, &cosine);
    }
    named = counted();
    print_number("open", opened);
    print_number("quantise", quantised);
    print_number("embed", embedded);
    print_number("nearest", named);
    print_number("stack", stack_used());
    print_number("scratch", (uint32_t)ec_micro_scratch_bytes(&m));
    print_number("label", label);
    print_bytes("embedding", embedding.bytes, m.dimensions * (m.precision == EC_INT8 ? 2u : 4u));
    print_number("status", (uint32_t)status);
}

void reset(void) {
    memcpy(data_start, data_source, (size_t)((char *)data_end - (char *)data_start));
    memset(bss_start, 0, (size_t)((char *)bss_end - (char *)bss_start));
#ifdef __ARM_FP
    CPACR |= 0xFu << 20; /* the floating-point unit is off after reset */
    __asm__ volatile("dsb\n isb");
#endif
    paint_stack();
    run();
    host(0x18, (const void *)0x20026); /* exit: the application has ended */
    for (;;) {
    }
}
