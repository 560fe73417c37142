//! The machine that a kernel is booted on, as the command line of the program that makes it. Pure.

use crate::host::packages::Dependency;
use crate::kernel::{Arch, ArchSpec, Bus, Flavor, Platform};
use camino::{Utf8Path, Utf8PathBuf};
use clap::builder::PossibleValue;
use serde::Serialize;
use std::fmt;
use std::sync::LazyLock;

/// Memory in MiB: what the smallest nodes have.
const MEMORY: u64 = 1024;
/// Several, since a kernel may hang as it starts the second.
const CPUS: u32 = 2;

/// `--vmm`: the program that makes the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vmm {
    /// A machine like that of the kernel's hypervisor, by KVM or without it.
    #[default]
    Qemu,
    /// The program of a hypervisor itself; needs KVM.
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
            Vmm::Qemu => PossibleValue::new("qemu")
                .help("A machine like that of the kernel's hypervisor, by KVM or without it"),
            Vmm::Hypervisor(flavor) => {
                PossibleValue::new(flavor.name()).help(format!("{} itself; needs KVM", flavor.spec().title))
            }
        })
    }
}

impl Vmm {
    /// The program's name.
    pub fn program(self, arch: Arch) -> &'static str {
        match self {
            Vmm::Qemu => arch.spec().qemu.program,
            Vmm::Hypervisor(flavor) => flavor.spec().program,
        }
    }

    /// The program, and where it comes from: distributions package QEMU only.
    pub(super) fn dependency(self, arch: Arch) -> Dependency {
        let packages = if self == Vmm::Qemu { arch.spec().qemu.packages } else { [""; 5] };
        Dependency::program(self.program(arch), "makes the machine", packages)
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's translator.
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

/// Where the first process comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootMedium {
    /// The disk, as in a microVM.
    Disk,
    /// This initial RAM disk.
    Initramfs(Utf8PathBuf),
}

/// A machine and what runs on it. Paths are absolute.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Who makes it.
    pub vmm: Vmm,
    /// What the kernel was built for.
    pub arch: Arch,
    /// Whose machine it resembles.
    pub flavor: Flavor,
    /// The kernel file.
    pub kernel: Utf8PathBuf,
    /// A disk image: the root, or a mere disk.
    pub disk: Utf8PathBuf,
    /// Where the init is.
    pub root: RootMedium,
    /// Does the kernel find its virtio devices on its command line? Else ACPI has them.
    pub devices_on_command_line: bool,
    /// The number of its vsock device, where this host can give one.
    pub vsock: Option<u32>,
    /// `--append`: more of the kernel's command line.
    pub append: Option<String>,
}

impl Machine {
    /// What people call it.
    pub(super) fn title(&self) -> String {
        match self.vmm {
            Vmm::Qemu => format!("QEMU {}", self.qemu_machine().split(',').next().unwrap_or_default()),
            Vmm::Hypervisor(flavor) => flavor.spec().title.to_owned(),
        }
    }

    /// Has it a network device? Firecracker and Cloud Hypervisor attach theirs to a device of the host
    /// that only root can make.
    pub(super) fn has_network(&self) -> bool {
        self.vmm == Vmm::Qemu
    }

    /// The kernel's command line: everything to the first serial port, from the first moment on; after a
    /// panic the machine ends.
    pub(super) fn kernel_command_line(&self) -> String {
        let ArchSpec { serial, early_console, platform, .. } = self.arch.spec();
        let (serial, pc_options) = match self.vmm {
            // Without a keyboard controller a triple fault ends the machine.
            Vmm::Qemu => (*serial, "reboot=t"),
            Vmm::Hypervisor(flavor) => (flavor.spec().serial.unwrap_or(serial), flavor.spec().pc_options),
        };
        let platform = match platform {
            Platform::Pc => format!(" {pc_options}"),
            Platform::DeviceTree => String::new(),
        };
        let root = match self.root {
            RootMedium::Disk => "root=/dev/vda rootfstype=ext4 ro init=/init",
            RootMedium::Initramfs(_) => "rdinit=/init",
        };
        let mut line = format!(
            "console={serial} {early_console}{platform} panic=-1 loglevel=7 printk.devkmsg=on {root}"
        );
        if let Some(append) = &self.append {
            line.push(' ');
            line.push_str(append);
        }
        line
    }

    /// The arguments of [`Vmm::program`]. `config` is the path of the file that
    /// [`firecracker_config`](Self::firecracker_config) goes into; only Firecracker reads it.
    pub(super) fn args(&self, accelerator: Accelerator, config: &Utf8Path) -> Vec<String> {
        match self.vmm {
            Vmm::Qemu => self.qemu(accelerator),
            Vmm::Hypervisor(Flavor::Firecracker) => {
                ["--no-api", "--config-file", config.as_str()].map(str::to_owned).to_vec()
            }
            Vmm::Hypervisor(Flavor::CloudHypervisor) => self.cloud_hypervisor(config),
        }
    }

    /// `microvm` is made after Firecracker's machine; Cloud Hypervisor's has PCI and ACPI, as q35 has.
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
        let mut memory = MEMORY;
        let mut args = vec![
            "-no-user-config".to_owned(),
            "-nodefaults".into(),
            "-M".into(),
            self.qemu_machine().into(),
            "-accel".into(),
            accel.into(),
            "-cpu".into(),
            cpu.into(),
            "-smp".into(),
            CPUS.to_string(),
            "-display".into(),
            "none".into(),
            "-no-reboot".into(),
            "-serial".into(),
            "stdio".into(),
            "-kernel".into(),
            self.kernel.to_string(),
            "-append".into(),
            self.kernel_command_line(),
            "-drive".into(),
            format!("if=none,id=disk,format=raw,read-only=on,file={}", escape_commas(&self.disk)),
            "-device".into(),
            format!("virtio-blk-{bus},drive=disk"),
            // A network of its own with nobody else on it.
            "-netdev".into(),
            "hubport,id=net,hubid=0".into(),
            "-device".into(),
            format!("virtio-net-{bus},netdev=net"),
            "-device".into(),
            format!("virtio-rng-{bus}"),
        ];
        if let Some(number) = self.vsock {
            args.extend(["-device".into(), format!("vhost-vsock-{bus},guest-cid={number}")]);
        }
        if let RootMedium::Initramfs(path) = &self.root {
            args.extend(["-initrd".into(), path.to_string()]);
            // It lies in memory as it is, and again unpacked.
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

    /// What Firecracker is to make, as its `--config-file` has it.
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
                // The name of the root device stands in our own command line.
                "is_root_device": false,
                "is_read_only": true,
            }],
            "vsock": { "guest_cid": 3, "uds_path": config.with_extension("vsock") },
        })
    }
}

/// A comma ends a value of QEMU's options unless it is doubled.
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
    fn each_flavor_has_a_machine_like_its_own() {
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
    fn an_initial_ram_disk_takes_the_place_of_the_disk() {
        let root = RootMedium::Initramfs("/w/initrd".into());
        let append = Some("quiet".to_owned());
        let machine = Machine {
            root,
            append,
            ..machine(Arch::Amd64, Flavor::CloudHypervisor, Vmm::Hypervisor(Flavor::CloudHypervisor))
        };
        assert!(machine.kernel_command_line().ends_with(" rdinit=/init quiet"));
        assert!(line(&machine, Accelerator::Kvm).ends_with("--initramfs /w/initrd"));
        let qemu = Machine { vmm: Vmm::Qemu, ..machine.clone() };
        assert!(line(&qemu, Accelerator::Kvm).ends_with("-initrd /w/initrd -m 2048"));
        let firecracker = Machine { vmm: Vmm::Hypervisor(Flavor::Firecracker), ..machine };
        assert_eq!(firecracker.firecracker_config("/w/c".into())["boot-source"]["initrd_path"], "/w/initrd");
    }

    #[test]
    fn firecracker_and_cloud_hypervisor_get_their_own_words() {
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
