"""What is linked around a generated model so that it answers samples: C for Linux, and for a board without a system.

See `edgemill.runtimes.program` for what goes in and out.
"""

from __future__ import annotations

from edgemill.artifact import Signature
from edgemill.compile.c_generate import ENTRY, HEADER, array
from edgemill.errors import ToolchainError
from edgemill.runtimes.program import ANSWERS, SAMPLES

_LINUX = """\
#include <pthread.h>
#include <stdio.h>
#include "@HEADER@"

@ARRAYS@

static int status;

static void *answer(void *unused) {
    size_t got;
    (void)unused;
    while ((got = fread(input0, 1, sizeof input0, stdin)) == sizeof input0) {
        @CALL@;
        if (fwrite(output0, sizeof output0, 1, stdout) != 1) {
            fputs("cannot write\\n", stderr);
            status = 4;
            return 0;
        }
    }
    if (got != 0 || ferror(stdin)) {
        fputs("the last sample is cut off\\n", stderr);
        status = 3;
    } else if (fflush(stdout) != 0) {
        status = 4;
    }
    return 0;
}

/* The model has its tensors on the stack, more than a process has by default. */
int main(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstacksize(&attributes, STACK_BYTES + (1 << 20)) != 0 ||
        pthread_create(&thread, &attributes, answer, 0) != 0) {
        fputs("no room for the stack\\n", stderr);
        return 5;
    }
    pthread_join(thread, 0);
    return status;
}
"""

# Semihosting (ARM, "Semihosting for AArch32 and AArch64", 2.0): the host does what is asked for at a breakpoint.
_BARE = """\
#include <stdint.h>
#include "@HEADER@"

@ARRAYS@

enum { OPEN = 0x01, WRITE0 = 0x04, WRITE = 0x05, READ = 0x06, EXIT = 0x20, READ_BINARY = 1, WRITE_BINARY = 5 };

extern uint32_t __stack[];
void reset(void);

static intptr_t host(intptr_t operation, const void *parameters) {
    register intptr_t first __asm__("r0") = operation;
    register const void *second __asm__("r1") = parameters;
    __asm__ volatile("bkpt 0xab" : "+r"(first) : "r"(second) : "memory");
    return first;
}

static void leave(intptr_t status, const char *words) {
    const intptr_t reason[2] = {0x20026 /* application exit */, status};
    if (words != 0) {
        host(WRITE0, words);
    }
    host(EXIT, reason);
    for (;;) {
    }
}

static void fault(void) {
    leave(70, "fault\\n");
}

static intptr_t open_file(const char *name, intptr_t mode) {
    intptr_t length = 0;
    while (name[length] != 0) {
        ++length;
    }
    const intptr_t parameters[3] = {(intptr_t)name, mode, length};
    return host(OPEN, parameters);
}

/* Bytes that were not read or written. */
static intptr_t transfer(intptr_t operation, intptr_t file, void *place, intptr_t size) {
    const intptr_t parameters[3] = {file, (intptr_t)place, size};
    return host(operation, parameters);
}

void reset(void) {
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: floating-point unit on */
    __asm__ volatile("dsb\\n isb");
#endif
    const intptr_t samples = open_file("@SAMPLES@", READ_BINARY);
    const intptr_t answers = open_file("@ANSWERS@", WRITE_BINARY);
    if (samples == -1 || answers == -1) {
        leave(2, "cannot open a file\\n");
    }
    for (;;) {
        const intptr_t missing = transfer(READ, samples, input0, sizeof input0);
        if (missing == (intptr_t)sizeof input0) {
            leave(0, 0);
        }
        if (missing != 0) {
            leave(3, "the last sample is cut off\\n");
        }
        @CALL@;
        if (transfer(WRITE, answers, output0, sizeof output0) != 0) {
            leave(4, "cannot write\\n");
        }
    }
}

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    __stack, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
"""

# 4 MB at 0 and at 0x20000000, 16 MB at 0x21000000: ARM, application notes 385 and 386; qemu, hw/arm/mps2.c.
# The emulator loads every section where it is used, so nothing is copied at the start.
_MPS2 = """\
MEMORY {
    CODE (rx) : ORIGIN = 0x00000000, LENGTH = 4M
    RAM (rw) : ORIGIN = 0x20000000, LENGTH = 4M
    WEIGHTS (r) : ORIGIN = 0x21000000, LENGTH = 16M
}
ENTRY(reset)
__stack = ORIGIN(RAM) + LENGTH(RAM);
SECTIONS {
    .text : { KEEP(*(.vectors)) *(.text .text.*) } > CODE
    .ARM.exidx : { *(.ARM.exidx*) } > CODE
    .rodata : { *(.rodata .rodata.*) } > WEIGHTS
    .data : { *(.data .data.*) } > RAM
    .bss : { *(.bss .bss.* COMMON) end = .; } > RAM
    /DISCARD/ : { *(.comment .note*) }
}
ASSERT(__stack - end >= STACK_BYTES, "no room for the stack on the emulated board")
"""

_BOARDS = {"mps2-an385": _MPS2, "mps2-an386": _MPS2}


def harness(signature: Signature, bare: bool) -> str:
    """The C that feeds a model; it is compiled with STACK_BYTES defined."""
    arrays = [f"static {array(spec, f'input{i}')};" for i, spec in enumerate(signature.inputs)]
    arrays += [f"static {array(spec, f'output{i}')};" for i, spec in enumerate(signature.outputs)]
    names = [f"input{i}" for i in range(len(signature.inputs))] + [f"output{i}" for i in range(len(signature.outputs))]
    filled = {
        "@HEADER@": HEADER,
        "@ARRAYS@": "\n".join(arrays),
        "@CALL@": f"{ENTRY}({', '.join(names)})",
        "@SAMPLES@": SAMPLES,
        "@ANSWERS@": ANSWERS,
    }
    text = _BARE if bare else _LINUX
    for mark, value in filled.items():
        text = text.replace(mark, value)
    return text


def linker_script(board: str | None, stack_bytes: int) -> str:
    """Where the parts of a program are in the memory of an emulated board.

    Raises:
        ToolchainError: the board is not known.
    """
    if board not in _BOARDS:
        raise ToolchainError(
            "It is not known what memory the target's emulated board has.",
            where="emulation.board",
            expected=" or ".join(_BOARDS),
            got=str(board),
        )
    return _BOARDS[board].replace("STACK_BYTES", str(stack_bytes))
