/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entry points of vmlinux. Hypervisors that know PVH start at
 * pvh_start_xen, in 32-bit protected mode, without paging: that prints the
 * banner to the first serial port and resets the machine, so that a boot in a
 * virtual machine is over in no time and has something to be read.
 */

/* Symbols are linked high, and here is run low. */
#define map 0xffffffff80000000
#define pa(symbol) (symbol - map)

	.section .head.text, "ax"

	.code64
	.globl startup_64
startup_64:
	cli
1:	hlt
	jmp	1b

#ifdef CONFIG_PVH
	.code32
	.globl pvh_start_xen
pvh_start_xen:
	cli
	cld
#ifdef CONFIG_SERIAL_8250_CONSOLE
	movl	$pa(linux_banner), %esi
	movl	$pa(1f), %edi
	jmp	puts
1:	movl	$pa(last_words), %esi
	movl	$pa(reset), %edi
	jmp	puts
#endif

	/* An exception with no table to handle it in: a triple fault, which every machine takes for a reset. */
reset:
	lidt	pa(no_idt)
	int3

#ifdef CONFIG_SERIAL_8250_CONSOLE
	/* Prints the string at %esi and jumps to %edi. There is no stack yet. */
puts:
	lodsb
	testb	%al, %al
	jnz	1f
	jmp	*%edi
1:	movb	%al, %bl
	cmpb	$'\n', %al
	jne	3f
	movb	$'\r', %bl
2:	/* The second of the two characters that end a line. */
3:	movl	$0x3fd, %edx
4:	inb	%dx, %al
	testb	$0x20, %al
	jz	4b
	movl	$0x3f8, %edx
	movb	%bl, %al
	outb	%al, %dx
	cmpb	$'\r', %bl
	jne	puts
	movb	$'\n', %bl
	jmp	2b
#endif

	.section .rodata, "a"
last_words:
	.asciz	"Kernel panic - not syncing: a miniature kernel has nothing to run\n"
	.balign	8
no_idt:
	.word	0
	.long	0

	/* XEN_ELFNOTE_PHYS32_ENTRY: where to enter, as a physical address. */
	.section .note.Xen, "a", @note
	.balign	4
	.long	4, 8, 18
	.asciz	"Xen"
	.quad	pa(pvh_start_xen)
#endif

	.section .note.GNU-stack, "", @progbits
