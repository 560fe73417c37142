/*
 * A PVH entry for a kernel that has none, such as those before Linux 5.0. Jumps to the kernel's 64-bit
 * entry by the same protocol as Firecracker (Documentation/x86/boot.rst, "64-bit Boot Protocol"). The
 * kernel itself is unchanged.
 *
 * QEMU calls it in protected mode without paging. ebx has the address of struct hvm_start_info from
 * xen/include/public/arch-x86/hvm/start_info.h. The stub is linked to its load address BASE, and uses the
 * memory up to 128 KiB from there. The compiler's command line defines BASE and KERNEL_ENTRY.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

/* Page tables, one of level 4, one of level 3 and four of level 2. They map 4 GiB in pages of 2 MiB. */
#define TABLES (BASE + 0x10000)
#define ZERO_PAGE (BASE + 0x18000)
#define STACK (BASE + 0x1c000)

__asm__(".globl enter\n"
        "enter:\n"
        "    cld\n"
        "    mov $" TEXT(STACK) ", %esp\n"
        "    push %ebx\n"
        "    call prepare\n"
        "    lgdt gdt_pointer\n"
        "    mov %cr4, %eax\n"
        "    or $0x20, %eax\n" /* PAE */
        "    mov %eax, %cr4\n"
        "    mov $" TEXT(TABLES) ", %eax\n"
        "    mov %eax, %cr3\n"
        "    mov $0xc0000080, %ecx\n" /* EFER */
        "    rdmsr\n"
        "    or $0x100, %eax\n" /* LME */
        "    wrmsr\n"
        "    mov $" TEXT(ZERO_PAGE) ", %esi\n"
        "    mov $" TEXT(KERNEL_ENTRY) ", %edi\n"
        "    mov %cr0, %eax\n"
        "    or $0x80000001, %eax\n" /* PG, PE */
        "    mov %eax, %cr0\n"
        "    ljmp $0x10, $1f\n"
        "1:\n" /* From here on these bytes are 64-bit instructions with the same meaning. */
        "    mov $0x18, %ax\n"
        "    mov %ax, %ds\n"
        "    mov %ax, %es\n"
        "    mov %ax, %ss\n"
        "    mov %esi, %esi\n" /* Clears the upper half. */
        "    mov %edi, %edi\n"
        "    jmp *%edi\n");

/* As the boot protocol requires, flat code at 0x10 and flat data at 0x18. */
const u64 gdt[] = { 0, 0, 0x00af9b000000ffffull, 0x00cf93000000ffffull };
const struct __attribute__((packed)) {
    u16 limit;
    const u64 *base;
} gdt_pointer = { sizeof gdt - 1, gdt };

struct start_info {
    u32 magic, version, flags, modules_count;
    u64 modules, command_line, rsdp, memory_map;
    u32 memory_map_count;
};

struct module {
    u64 address, size;
};

struct memory {
    u64 address, size;
    u32 type, reserved;
};

/* struct boot_e820_entry */
struct __attribute__((packed)) e820 {
    u64 address, size;
    u32 type;
};

/* A field of struct boot_params, by its offset. */
#define FIELD(type, place) (*(type *)(ZERO_PAGE + (place)))

void prepare(const struct start_info *info)
{
    const struct memory *map = (const struct memory *)(u32)info->memory_map;
    struct e820 *to = (struct e820 *)(ZERO_PAGE + 0x2d0);
    u64 *table = (u64 *)TABLES;
    u32 count = info->memory_map_count;

    for (u32 *at = (u32 *)TABLES; at < (u32 *)STACK - 64; at++)
        *at = 0;
    table[0] = (TABLES + 0x1000) | 3;
    for (u32 i = 0; i < 4; i++)
        table[512 + i] = (TABLES + 0x2000 + i * 0x1000) | 3;
    for (u32 i = 0; i < 4 * 512; i++)
        table[1024 + i] = (u64)i << 21 | 0x83;

    FIELD(u64, 0x070) = info->rsdp;
    FIELD(u16, 0x1fe) = 0xaa55;
    FIELD(u32, 0x202) = 0x53726448; /* HdrS */
    FIELD(u16, 0x206) = 0x020c;     /* Protocol version */
    FIELD(u8, 0x210) = 0xff;        /* Unregistered loader */
    FIELD(u8, 0x211) = 1;           /* LOADED_HIGH */
    FIELD(u32, 0x228) = (u32)info->command_line;
    FIELD(u32, 0x230) = 0x1000000; /* kernel_alignment */
    if (info->modules_count > 0) {
        const struct module *initrd = (const struct module *)(u32)info->modules;

        FIELD(u32, 0x218) = (u32)initrd->address;
        FIELD(u32, 0x21c) = (u32)initrd->size;
    }
    if (count > 128)
        count = 128;
    FIELD(u8, 0x1e8) = (u8)count;
    for (u32 i = 0; i < count; i++) {
        to[i].address = map[i].address;
        to[i].size = map[i].size;
        to[i].type = map[i].type;
    }
}
