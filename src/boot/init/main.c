/* --- The checks in their order, and the process. */

static const struct {
    const char *name;
    long (*run)(struct text *text);
} checks[] = {
    { "block", check_block },       { "network", check_network }, { "vsock", check_vsock },
    { "config", check_config },     { "cgroup2", check_cgroup2 }, { "overlay", check_overlay },
    { "veth", check_veth },         { "bridge", check_bridge },   { "nftables", check_nftables },
    { "iptables", check_iptables },
    /* The last one, because it changes the namespaces of the process. */
    { "namespaces", check_namespaces },
};

static void run_checks(void)
{
    for (unsigned i = 0; i < sizeof checks / sizeof *checks; i++) {
        struct text line = { .length = 0 }, found = { .length = 0 };
        long result = checks[i].run(&found);

        add(&line, "check ");
        add(&line, checks[i].name);
        add(&line, " ");
        add_number(&line, (unsigned long)(result < 0 ? -result : 0));
        add(&line, " ");
        add(&line, found.bytes);
        print(&line);
    }
}

static void print_release(void)
{
    /* struct utsname has six texts of 65 bytes. The release is the third. */
    char names[6][65];
    struct text line = { .length = 0 };

    CALL(uname, names, 0, 0, 0, 0, 0);
    add(&line, "release ");
    add(&line, names[2]);
    print(&line);
}

__attribute__((noreturn, used)) void init(void)
{
    long second[2] = { 1, 0 };

    mount_at("proc", "/proc", 0);
    mount_at("sysfs", "/sys", 0);
    mount_at("tmpfs", "/tmp", 0);
    if (mount_at("devtmpfs", "/dev", 0) < 0)
        CALL(mknodat, AT_FDCWD, "/dev/kmsg", 020644, 1 << 8 | 11, 0, 0);
    kmsg = open_at("/dev/kmsg", O_WRONLY);

    print_text("init");
    print_release();
    load_modules();
    run_checks();
    print_text("end");
    /* LINUX_REBOOT_CMD_RESTART ends the hypervisor, which does not reboot. */
    CALL(reboot, 0xfee1dead, 672274793, 0x01234567, 0, 0, 0);
    for (;;)
        CALL(nanosleep, second, 0, 0, 0, 0, 0);
}
