/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry of the first CPU (64-bit mode, RSI: the boot parameters), of the others (real mode, at
 * AP_CODE), and of exceptions.
 */
#define AP_CODE 0x10000
#define STACK   16384

	.section .note.Xen, "a", @note
	.long 4, 4, 18			/* name, value, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code64
	.global start
start:
	cli
	mov $first_stack + STACK, %esp
	lgdt gdt_pointer(%rip)
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	pushq $0x10
	pushq $1f
	lretq
1:	mov %rsi, %rdi
	call villain_main
2:	cli
	hlt
	jmp 2b

/* Copied to AP_CODE. From real mode straight to 64-bit mode, on the first CPU's page tables. */
	.global ap_begin, ap_end
	.code16
ap_begin:
	cli
	mov %cs, %ax
	mov %ax, %ds
	lgdtl ap_gdt_pointer - ap_begin
	mov $0x20, %eax			/* PAE */
	mov %eax, %cr4
	mov ap_cr3 - ap_begin, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx		/* EFER.LME */
	mov $0x100, %eax
	xor %edx, %edx
	wrmsr
	mov $0x80000011, %eax		/* PG, ET, PE */
	mov %eax, %cr0
	ljmpl $0x10, $ap_long
	.balign 8
ap_gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt
	.global ap_cr3
ap_cr3:
	.long 0
ap_end:
	.code64
ap_long:
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $1, %edi
	lock xadd %edi, ap_count(%rip)	/* counts from 1 */
	mov %edi, %eax
	shl $14, %eax			/* STACK */
	lea other_stacks(%rax), %rsp
	call ap_main
	jmp 2b

/* Exceptions: a frame for exception() in main.c. */
	.macro vector n
	.if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17
	.else
	pushq $0
	.endif
	pushq $\n
	jmp exception_common
	.balign 16
	.endm

	.balign 16
	.global vectors
vectors:
	.set i, 0
	.rept 32
	vector i
	.set i, i + 1
	.endr
exception_common:
	mov %rsp, %rdi
	call exception

	.section .rodata
	.balign 8
gdt:
	.quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.quad gdt

	.data
	.global ap_count
ap_count:
	.long 1

	.bss
	.balign 16
first_stack:
	.skip STACK
other_stacks:
	.skip STACK * 8
	.section .note.GNU-stack, "", @progbits
