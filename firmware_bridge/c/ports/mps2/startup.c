/* From reset to main(), for any Cortex-M: the vector table, the data that has initial values, the floating-point unit.
 */
#include <stdint.h>
#include <string.h>

extern uint8_t data_start[], data_end[], data_load[], bss_start[], bss_end[], stack_top[];
extern int main(void);
void reset(void);
void uart_received(void);
void sample_tick(void);

/* What nobody handles stops here, where a debugger finds it. */
static void stop(void) {
    for (;;)
        ;
}

void reset(void) {
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: coprocessors 10 and 11, the FPU, are on */
    __asm volatile("dsb\nisb" ::: "memory");
#endif
    memcpy(data_start, data_load, (size_t)(data_end - data_start));
    memset(bss_start, 0, (size_t)(bss_end - bss_start));
    (void)main();
    stop();
}

typedef void (*handler)(void);

/* ISO C converts no object pointer to a function pointer; the first entry is the initial stack pointer. */
static const struct {
    uint8_t *stack;
    handler system[15];
    handler devices[32];
} vectors __attribute__((section(".vectors"), used)) = {
    stack_top,
    {reset, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop},
    {[0] = uart_received, [8] = sample_tick},
};
