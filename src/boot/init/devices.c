/* --- Devices. A driver must be bound to a virtio device. */

static long find_device(const char *driver, struct text *path)
{
    add(path, "/sys/bus/virtio/drivers/");
    add(path, driver);
    add(path, "/");
    /* A driver that this kernel does not have has no directory. */
    return find_name(path->bytes, "virtio", path) < 0 ? -ENODEV : 0;
}

static long check_block(struct text *text)
{
    struct text path = { .length = 0 };
    char sector[513];
    long result = step(text, "no device has the driver virtio_blk", find_device("virtio_blk", &path));

    return result ? result : step(text, "read /dev/vda", read_file("/dev/vda", sector, sizeof sector));
}

static long check_network(struct text *text)
{
    struct text path = { .length = 0 }, name = { .length = 0 };
    long result = step(text, "no device has the driver virtio_net", find_device("virtio_net", &path));

    if (result)
        return result;
    add(&path, "/net/");
    result = step(text, "its interface", find_name(path.bytes, "", &name));
    if (!result)
        result = step(text, "up", change_link(name.bytes, IFF_UP, 0));
    if (!result)
        add(text, name.bytes);
    return result;
}

static long check_vsock(struct text *text)
{
    struct text path = { .length = 0 };
    long result = step(text, "socket", CALL(socket, AF_VSOCK, SOCK_STREAM, 0, 0, 0, 0));

    if (!result)
        result = step(text, "/dev/vsock", open_at("/dev/vsock", O_RDONLY));
    if (result)
        return result;
    /* The driver has a directory even if the machine has no device. */
    add(text, find_device("vmw_vsock_virtio_transport", &path) ? "no device" : "device");
    return step(text, "no driver vmw_vsock_virtio_transport",
                open_at("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport", O_RDONLY));
}
