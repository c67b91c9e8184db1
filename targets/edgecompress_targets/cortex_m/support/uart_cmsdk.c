/* CMSDK APB UART (Arm DDI 0479, 4.3), the first one of the board: UART_BASE comes from the command line. */
#include "board.h"

#define UART ((volatile uint32_t *)UART_BASE)
enum { DATA, STATE, CONTROL, INTERRUPT, DIVIDER };
enum { SENDING = 1, RECEIVED = 2 };

void uart_start(void) { UART[DIVIDER] = UART_DIVIDER, UART[CONTROL] = 3; }
int uart_read(void) { return UART[STATE] & RECEIVED ? (int)(UART[DATA] & 0xFF) : -1; }
void uart_write(uint8_t byte) {
    while (UART[STATE] & SENDING) {}
    UART[DATA] = byte;
}
