/* --- Checks. Each returns 0 or a negative errno. `text` gets the failed step, or what was found. */

static long step(struct text *text, const char *what, long result)
{
    if (result < 0) {
        text->length = 0;
        add(text, what);
    }
    return result < 0 ? result : 0;
}

static long check_cgroup2(struct text *text)
{
    char controllers[256];
    long result;

    make_dir("/tmp/cgroup");
    result = step(text, "mount", mount_at("cgroup2", "/tmp/cgroup", 0));
    if (!result)
        result = step(text, "cgroup.controllers",
                      read_file("/tmp/cgroup/cgroup.controllers", controllers, sizeof controllers));
    if (!result) {
        for (char *at = controllers; *at; at++)
            if (*at == '\n')
                *at = 0;
        add(text, controllers);
    }
    return result;
}

static long check_overlay(struct text *text)
{
    long result, file;

    make_dir("/tmp/lower");
    make_dir("/tmp/upper");
    make_dir("/tmp/work");
    make_dir("/tmp/merged");
    file = open_at("/tmp/lower/file", O_WRONLY | O_CREAT);
    CALL(close, file, 0, 0, 0, 0, 0);
    result = step(text, "mount",
                  mount_at("overlay", "/tmp/merged",
                           "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"));
    if (result)
        return result;
    /* A file of the lower layer must be copied up when it is opened for writing. */
    file = open_at("/tmp/merged/file", O_RDWR);
    result = step(text, "write", file < 0 ? file : CALL(write, file, "x", 1, 0, 0, 0));
    if (!result)
        result = step(text, "copy up", open_at("/tmp/upper/file", O_RDONLY));
    return result;
}

static long check_namespaces(struct text *text)
{
    static const struct { const char *name; unsigned long flag; } all[] = {
        { "mount", 0x00020000 }, { "cgroup", 0x02000000 }, { "uts", 0x04000000 },
        { "ipc", 0x08000000 },   { "pid", 0x20000000 },    { "net", 0x40000000 },
    };
    long result = 0;

    for (unsigned i = 0; i < sizeof all / sizeof *all && !result; i++)
        result = step(text, all[i].name, CALL(unshare, all[i].flag, 0, 0, 0, 0, 0));
    return result;
}

static long check_config(struct text *text)
{
    char start[3];
    long result = step(text, "/proc/config.gz", read_file("/proc/config.gz", start, sizeof start));

    return !result && ((u8)start[0] != 0x1f || (u8)start[1] != 0x8b) ? -EPROTO : result;
}
