/* --- Modules. The order is a file with one path in each line, dependencies first. */

static void load_module(unsigned number, const char *path)
{
    struct text line = { .length = 0 };
    long file, result;

    add(&line, "load ");
    add_number(&line, number);
    add(&line, " ");
    add(&line, path);
    print(&line);
    file = open_at(path, O_RDONLY);
    result = file < 0 ? file : CALL(finit_module, file, "", 0, 0, 0, 0);
    if (file >= 0)
        CALL(close, file, 0, 0, 0, 0, 0);
    line.length = 0;
    add(&line, "loaded ");
    add_number(&line, number);
    add(&line, " ");
    add_number(&line, (unsigned long)(result < 0 ? -result : 0));
    print(&line);
}

static void load_modules(void)
{
    long order = open_at("/order", O_RDONLY), got;
    unsigned number = 0, count = 0;
    char block[4096], path[512];

    if (order < 0)
        return;
    while ((got = CALL(read, order, block, sizeof block, 0, 0, 0)) > 0) {
        for (long at = 0; at < got; at++) {
            if (block[at] != '\n') {
                if (count < sizeof path - 1)
                    path[count++] = block[at];
                continue;
            }
            path[count] = 0;
            count = 0;
            load_module(number++, path);
        }
    }
    CALL(close, order, 0, 0, 0, 0, 0);
}
