/* The least that Arm's MPS2 board AN386 (Cortex-M4F) needs, in QEMU: vectors, FPU, memory, printing by semihosting. */
#include <stdint.h>

extern uint32_t stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[];
int main(void);

static int semihosting(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text) { semihosting(0x04, text); } /* SYS_WRITE0 */

_Noreturn void stop(int code) {
    const uint32_t reason[] = {0x20026, (uint32_t)code}; /* ADP_Stopped_ApplicationExit */
    semihosting(0x20, reason);                           /* SYS_EXIT_EXTENDED */
    for (;;) {}
}

void reset(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the FPU */
    __asm__ volatile("dsb\n isb" ::: "memory");
    const uint32_t *from = data_load;
    for (volatile uint32_t *to = data_start; to < data_end; to++) *to = *from++;
    for (volatile uint32_t *to = bss_start; to < bss_end; to++) *to = 0;
    stop(main());
}

void fault(void) {
    print("fault\n");
    stop(2);
}

__attribute__((section(".vectors"), used)) void *const vectors[] = {stack_top, reset, fault, fault, fault, fault, fault};
