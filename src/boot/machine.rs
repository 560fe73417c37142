//! Builds the command lines of QEMU and the hypervisors.

use crate::host::packages::Dependency;
use crate::kconfig::Config;
use crate::kernel::{Arch, ArchSpec, Bus, Flavor, Platform};
use camino::{Utf8Path, Utf8PathBuf};
use clap::builder::PossibleValue;
use serde::Serialize;
use std::fmt;
use std::sync::LazyLock;

/// The memory in MiB, as small nodes have.
const MEMORY: u64 = 1024;
/// More than one, since a kernel may hang when it starts the second CPU.
const CPUS: u32 = 2;

/// `--vmm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vmm {
    /// A virtual machine like that of the kernel's hypervisor, with KVM or without.
    #[default]
    Qemu,
    /// The hypervisor itself, which needs KVM.
    Hypervisor(Flavor),
}

impl clap::ValueEnum for Vmm {
    fn value_variants<'a>() -> &'a [Self] {
        static ALL: LazyLock<Vec<Vmm>> = LazyLock::new(|| {
            [Vmm::Qemu].into_iter().chain(Flavor::ALL.iter().copied().map(Vmm::Hypervisor)).collect()
        });
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Vmm::Qemu => {
                PossibleValue::new("qemu").help("QEMU, with a machine like that of the kernel's hypervisor")
            }
            Vmm::Hypervisor(flavor) => PossibleValue::new(flavor.name())
                .help(format!("{} itself, which needs KVM", flavor.spec().title)),
        })
    }
}

impl Vmm {
    pub fn program(self, arch: Arch) -> &'static str {
        match self {
            Vmm::Qemu => arch.spec().qemu.program,
            Vmm::Hypervisor(flavor) => flavor.spec().program,
        }
    }

    /// Returns the program with its packages. Distributions only package QEMU.
    pub(super) fn dependency(self, arch: Arch) -> Dependency {
        let packages = if self == Vmm::Qemu { arch.spec().qemu.packages } else { [""; 5] };
        Dependency::program(self.program(arch), "runs the virtual machine", packages)
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    Kvm,
    Emulation,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Emulation => "software emulation",
        })
    }
}

/// Where init is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootMedium {
    Disk,
    /// An initramfs at this path.
    Initramfs(Utf8PathBuf),
}

/// What the machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// kcompile's init runs checks, and kcompile reads the console.
    Checks,
    /// The user has the console, and may write to the disk. The changes are discarded.
    Shell,
}

/// A virtual machine with its kernel and disk. Paths are absolute.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub vmm: Vmm,
    pub arch: Arch,
    /// The hypervisor whose machine QEMU resembles.
    pub flavor: Flavor,
    pub kernel: Utf8PathBuf,
    /// A disk image, which holds the root file system or is empty.
    pub disk: Utf8PathBuf,
    pub root: RootMedium,
    /// Whether the kernel finds virtio devices on its command line, and not by ACPI.
    pub devices_on_command_line: bool,
    /// The CID of the vsock device, if this host supports one.
    pub vsock: Option<u32>,
    pub purpose: Purpose,
    pub append: Option<String>,
}

impl Machine {
    /// Returns the name for people.
    pub(super) fn title(&self) -> String {
        match self.vmm {
            Vmm::Qemu => format!("QEMU {}", self.qemu_machine().split(',').next().unwrap_or_default()),
            Vmm::Hypervisor(flavor) => flavor.spec().title.to_owned(),
        }
    }

    /// Returns whether there is a network device. Firecracker and Cloud Hypervisor need a TAP
    /// device that only root can create.
    pub(super) fn has_network(&self) -> bool {
        self.vmm == Vmm::Qemu
    }

    /// Returns the kernel's command line. It sends all output to the first serial port as early as
    /// possible, and ends the virtual machine after a panic.
    pub(super) fn kernel_command_line(&self) -> String {
        let ArchSpec { serial, early_console, platform, .. } = self.arch.spec();
        let (serial, pc_options) = match self.vmm {
            // There is no keyboard controller, so a triple fault ends the virtual machine.
            Vmm::Qemu => (*serial, "reboot=t"),
            Vmm::Hypervisor(flavor) => (flavor.spec().serial.unwrap_or(serial), flavor.spec().pc_options),
        };
        let platform = match platform {
            Platform::Pc => format!(" {pc_options}"),
            Platform::DeviceTree => String::new(),
        };
        let root = match (&self.root, self.purpose) {
            (RootMedium::Disk, Purpose::Checks) => "root=/dev/vda rootfstype=ext4 ro init=/init",
            (RootMedium::Disk, Purpose::Shell) => "root=/dev/vda rw",
            (RootMedium::Initramfs(_), _) => "rdinit=/init",
        };
        let messages = match self.purpose {
            Purpose::Checks => format!("{early_console}{platform} panic=-1 loglevel=7 printk.devkmsg=on"),
            Purpose::Shell => format!("quiet{platform} panic=-1"),
        };
        let mut line = format!("console={serial} {messages} {root}");
        if let Some(append) = &self.append {
            line.push(' ');
            line.push_str(append);
        }
        line
    }

    /// Returns whether the command line, or the one in the kernel's config, forbids the kernel to load modules.
    pub(super) fn disables_modules(&self, config: Option<&Config>) -> bool {
        let built_in = config.and_then(|config| config.text("CMDLINE")).unwrap_or_default();
        let line = self.kernel_command_line();
        line.split(' ').chain(built_in.split(' ')).any(|word| matches!(word, "nomodule" | "nomodule=1"))
    }

    /// Returns the arguments of [`Vmm::program`]. `config` is the path of the file with
    /// [`firecracker_config`](Self::firecracker_config), which only Firecracker reads.
    pub(super) fn args(&self, accelerator: Accelerator, config: &Utf8Path) -> Vec<String> {
        match self.vmm {
            Vmm::Qemu => self.qemu(accelerator),
            Vmm::Hypervisor(Flavor::Firecracker) => {
                ["--no-api", "--config-file", config.as_str()].map(str::to_owned).to_vec()
            }
            Vmm::Hypervisor(Flavor::CloudHypervisor) => self.cloud_hypervisor(config),
        }
    }

    /// QEMU's `microvm` is like Firecracker's machine. Cloud Hypervisor's has PCI and ACPI, like q35.
    fn qemu_machine(&self) -> &'static str {
        let qemu = &self.arch.spec().qemu;
        match self.flavor.spec().bus {
            Bus::Mmio if self.devices_on_command_line => qemu.mmio,
            Bus::Mmio => qemu.mmio_acpi,
            Bus::Pci => qemu.pci,
        }
    }

    fn qemu(&self, accelerator: Accelerator) -> Vec<String> {
        let (accel, cpu) = match accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Emulation => ("tcg", self.arch.spec().qemu.cpu),
        };
        let bus = match self.flavor.spec().bus {
            Bus::Mmio => "device",
            Bus::Pci => "pci",
        };
        let (serial, disk_mode, network) = match self.purpose {
            // A network without other members.
            Purpose::Checks => ("stdio", "read-only", "hubport,id=net,hubid=0"),
            Purpose::Shell => ("mon:stdio", "snapshot", "user,id=net"),
        };
        let mut memory = MEMORY;
        let machine = self.qemu_machine();
        let args = ["-no-user-config", "-nodefaults", "-M", machine, "-accel", accel, "-cpu", cpu];
        let mut args = args.map(str::to_owned).to_vec();
        args.extend([
            "-smp".into(),
            CPUS.to_string(),
            "-display".into(),
            "none".into(),
            "-no-reboot".into(),
            "-serial".into(),
            serial.into(),
            "-kernel".into(),
            self.kernel.to_string(),
            "-append".into(),
            self.kernel_command_line(),
            "-drive".into(),
            format!("if=none,id=disk,format=raw,{disk_mode}=on,file={}", escape_commas(&self.disk)),
            "-device".into(),
            format!("virtio-blk-{bus},drive=disk"),
            "-netdev".into(),
            network.into(),
            "-device".into(),
            format!("virtio-net-{bus},netdev=net"),
            "-device".into(),
            format!("virtio-rng-{bus}"),
        ]);
        if let Some(number) = self.vsock {
            args.extend(["-device".into(), format!("vhost-vsock-{bus},guest-cid={number}")]);
        }
        if let RootMedium::Initramfs(path) = &self.root {
            args.extend(["-initrd".into(), path.to_string()]);
            // The initramfs is in memory twice, packed and unpacked.
            memory *= 2;
        }
        args.extend(["-m".into(), memory.to_string()]);
        args
    }

    fn cloud_hypervisor(&self, config: &Utf8Path) -> Vec<String> {
        let mut args = vec![
            "--kernel".to_owned(),
            self.kernel.to_string(),
            "--cmdline".into(),
            self.kernel_command_line(),
            "--cpus".into(),
            format!("boot={CPUS}"),
            "--memory".into(),
            format!("size={MEMORY}M"),
            "--disk".into(),
            format!("path={},readonly=on", self.disk),
            "--serial".into(),
            "tty".into(),
            "--console".into(),
            "off".into(),
            "--vsock".into(),
            format!("cid=3,socket={}", config.with_extension("vsock")),
        ];
        if let RootMedium::Initramfs(path) = &self.root {
            args.extend(["--initramfs".into(), path.to_string()]);
        }
        args
    }

    /// Returns the file for Firecracker's `--config-file`.
    pub(super) fn firecracker_config(&self, config: &Utf8Path) -> serde_json::Value {
        let mut source = serde_json::json!({
            "kernel_image_path": self.kernel,
            "boot_args": self.kernel_command_line(),
        });
        if let RootMedium::Initramfs(path) = &self.root {
            source["initrd_path"] = path.as_str().into();
        }
        serde_json::json!({
            "boot-source": source,
            "machine-config": { "vcpu_count": CPUS, "mem_size_mib": MEMORY },
            "drives": [{
                "drive_id": "disk",
                "path_on_host": self.disk,
                // The kernel's command line names the root device.
                "is_root_device": false,
                "is_read_only": true,
            }],
            "vsock": { "guest_cid": 3, "uds_path": config.with_extension("vsock") },
        })
    }
}

/// Doubles commas, which would end a value of QEMU's options.
fn escape_commas(path: &Utf8Path) -> String {
    path.as_str().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(arch: Arch, flavor: Flavor, vmm: Vmm) -> Machine {
        Machine {
            vmm,
            arch,
            flavor,
            kernel: "/w/kernel".into(),
            disk: "/w/a,b".into(),
            root: RootMedium::Disk,
            devices_on_command_line: true,
            vsock: None,
            purpose: Purpose::Checks,
            append: None,
        }
    }

    fn line(machine: &Machine, accelerator: Accelerator) -> String {
        format!(
            "{} {}",
            machine.vmm.program(machine.arch),
            machine.args(accelerator, "/w/vm.json".into()).join(" ")
        )
    }

    #[test]
    fn qemu_resembles_the_machine_of_each_flavor() {
        let firecracker = machine(Arch::Amd64, Flavor::Firecracker, Vmm::Qemu);
        assert_eq!(
            line(&firecracker, Accelerator::Emulation),
            "qemu-system-x86_64 -no-user-config -nodefaults -M microvm,acpi=off -accel tcg -cpu max -smp 2 \
             -display none -no-reboot -serial stdio -kernel /w/kernel -append console=ttyS0 \
             earlyprintk=ttyS0 reboot=t panic=-1 loglevel=7 printk.devkmsg=on root=/dev/vda \
             rootfstype=ext4 ro init=/init -drive if=none,id=disk,format=raw,read-only=on,file=/w/a,,b \
             -device virtio-blk-device,drive=disk -netdev hubport,id=net,hubid=0 -device \
             virtio-net-device,netdev=net -device virtio-rng-device -m 1024"
        );
        let by_acpi = Machine { devices_on_command_line: false, ..firecracker };
        assert!(line(&by_acpi, Accelerator::Kvm).contains("-M microvm,acpi=on -accel kvm -cpu host"));
        let ch = Machine { vsock: Some(77), ..machine(Arch::Amd64, Flavor::CloudHypervisor, Vmm::Qemu) };
        let ch = line(&ch, Accelerator::Kvm);
        for part in ["-M q35 ", "virtio-blk-pci,", "virtio-net-pci,", "vhost-vsock-pci,guest-cid=77"] {
            assert!(ch.contains(part), "{part}: {ch}");
        }
        let arm = line(&machine(Arch::Arm64, Flavor::Firecracker, Vmm::Qemu), Accelerator::Emulation);
        for part in ["qemu-system-aarch64 ", "-M virt ", "-cpu cortex-a72", "console=ttyAMA0 earlycon panic"]
        {
            assert!(arm.contains(part), "{part}: {arm}");
        }
    }

    #[test]
    fn an_initramfs_replaces_the_disk() {
        let root = RootMedium::Initramfs("/w/initrd".into());
        let append = Some("quiet".to_owned());
        let machine = Machine {
            root,
            append,
            ..machine(Arch::Amd64, Flavor::CloudHypervisor, Vmm::Hypervisor(Flavor::CloudHypervisor))
        };
        assert!(machine.kernel_command_line().ends_with(" rdinit=/init quiet"));
        assert!(!machine.disables_modules(None));
        let built_in = Config::parse("CONFIG_CMDLINE=\"quiet nomodule\"\n");
        assert!(machine.disables_modules(Some(&built_in)));
        assert!(line(&machine, Accelerator::Kvm).ends_with("--initramfs /w/initrd"));
        let qemu = Machine { vmm: Vmm::Qemu, ..machine.clone() };
        assert!(line(&qemu, Accelerator::Kvm).ends_with("-initrd /w/initrd -m 2048"));
        let firecracker = Machine { vmm: Vmm::Hypervisor(Flavor::Firecracker), ..machine };
        assert_eq!(firecracker.firecracker_config("/w/c".into())["boot-source"]["initrd_path"], "/w/initrd");
    }

    #[test]
    fn firecracker_and_cloud_hypervisor_get_their_own_options() {
        let cloud = machine(Arch::Amd64, Flavor::CloudHypervisor, Vmm::Hypervisor(Flavor::CloudHypervisor));
        assert_eq!(
            line(&cloud, Accelerator::Kvm),
            "cloud-hypervisor --kernel /w/kernel --cmdline console=ttyS0 earlyprintk=ttyS0 reboot=t panic=-1 \
             loglevel=7 printk.devkmsg=on root=/dev/vda rootfstype=ext4 ro init=/init --cpus boot=2 --memory \
             size=1024M --disk path=/w/a,b,readonly=on --serial tty --console off --vsock \
             cid=3,socket=/w/vm.vsock"
        );
        let firecracker = machine(Arch::Amd64, Flavor::Firecracker, Vmm::Hypervisor(Flavor::Firecracker));
        assert_eq!(line(&firecracker, Accelerator::Kvm), "firecracker --no-api --config-file /w/vm.json");
        assert_eq!(
            firecracker.firecracker_config("/w/vm.json".into()),
            serde_json::json!({
                "boot-source": {
                    "kernel_image_path": "/w/kernel",
                    "boot_args": "console=ttyS0 earlyprintk=ttyS0 reboot=k pci=off panic=-1 loglevel=7 \
                        printk.devkmsg=on root=/dev/vda rootfstype=ext4 ro init=/init",
                },
                "machine-config": { "vcpu_count": 2, "mem_size_mib": 1024 },
                "drives": [{
                    "drive_id": "disk", "path_on_host": "/w/a,b",
                    "is_root_device": false, "is_read_only": true,
                }],
                "vsock": { "guest_cid": 3, "uds_path": "/w/vm.vsock" },
            })
        );
        assert!(!firecracker.has_network());
    }
}
