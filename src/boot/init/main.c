/* --- The trials in their order, and the process itself. */

static const struct {
    const char *name;
    long (*of)(struct text *text);
} trials[] = {
    { "block", try_block },       { "network", try_network }, { "vsock", try_vsock },
    { "config", try_config },     { "cgroup2", try_cgroup2 }, { "overlay", try_overlay },
    { "veth", try_veth },         { "bridge", try_bridge },   { "nftables", try_nftables },
    { "iptables", try_iptables },
    /* The last, since nothing after it is where it was. */
    { "namespaces", try_namespaces },
};

static void run_trials(void)
{
    for (unsigned i = 0; i < sizeof trials / sizeof *trials; i++) {
        struct text line = { .length = 0 }, found = { .length = 0 };
        long result = trials[i].of(&found);

        add(&line, "check ");
        add(&line, trials[i].name);
        add(&line, " ");
        add_number(&line, (unsigned long)(result < 0 ? -result : 0));
        add(&line, " ");
        add(&line, found.bytes);
        say(&line);
    }
}

static void say_release(void)
{
    /* struct utsname: six texts of 65 bytes; the release is the third. */
    char names[6][65];
    struct text line = { .length = 0 };

    CALL(uname, names, 0, 0, 0, 0, 0);
    add(&line, "release ");
    add(&line, names[2]);
    say(&line);
}

__attribute__((noreturn, used)) void trial(void)
{
    long second[2] = { 1, 0 };

    mount_at("proc", "/proc", 0);
    mount_at("sysfs", "/sys", 0);
    mount_at("tmpfs", "/tmp", 0);
    if (mount_at("devtmpfs", "/dev", 0) < 0)
        CALL(mknodat, AT_FDCWD, "/dev/kmsg", 020644, 1 << 8 | 11, 0, 0);
    kmsg = open_at("/dev/kmsg", O_WRONLY);

    say_text("init");
    say_release();
    load_modules();
    run_trials();
    say_text("end");
    /* LINUX_REBOOT_CMD_RESTART: on every machine it ends the emulator, which is told not to reboot. */
    CALL(reboot, 0xfee1dead, 672274793, 0x01234567, 0, 0, 0);
    for (;;)
        CALL(nanosleep, second, 0, 0, 0, 0, 0);
}
