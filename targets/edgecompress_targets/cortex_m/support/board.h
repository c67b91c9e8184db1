/* What serve.c needs of a board: a byte stream. uart_cmsdk.c has it for Arm's FPGA images, which QEMU emulates; for
 * another board, write these three functions. */
#include <stdint.h>

void uart_start(void);
int uart_read(void); /* the next byte, or -1 when none has come */
void uart_write(uint8_t byte);
