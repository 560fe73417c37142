//! What `kcompile` prints without arguments, and the end of its help.

/// The overview, below what the program is for and its usage.
pub const OVERVIEW: &str = "\
Examples:
  kcompile doctor --install         install what a build needs
  kcompile 6.1 --fc                 build the newest 6.1 for Firecracker
  kcompile plan 6.1 --fc            show every input of that build
  kcompile boot 6.1 --fc --shell    get a shell in it
  kcompile push docker.io/foobar    publish the images

Commands:
  build      build  plan  fetch  make  doctor
  configs    list  check  config  add  update
  images     inspect  extract  boot  verify  cve  diff  push
  cache      cache  ccache  toolchain  clean
  help       help  man  completions

`kcompile -h` lists the options of a build, `kcompile help COMMAND` others.
";

/// The end of the help.
pub const EXAMPLES: &str = "\
Examples:
  kcompile 6.1 --fc                        newest 6.1, for Firecracker
  kcompile 5.10 6.1 --fc                   two kernels in parallel
  kcompile 5.15.12 --ch                    5.15.12, for Cloud Hypervisor
  kcompile 6.1 --fc --source apt           the distribution's source package
  kcompile 6.1.7 --fc --source ./linux     a source directory, used in place
  kcompile plan 6.1 --fc --set KSM=n       show the inputs of a build
  kcompile check my.config --for kubernetes-1.37 cilium
  kcompile doctor --install                install what a build needs
  kcompile boot 6.1 --fc                   boot and test what was built
  kcompile push docker.io/foobar           copy images in out/ to a registry

Exit codes: 0 ok, 1 build or check failed, 2 usage or plan error, 3 fetch or verification failed, \
4 host lacks something, 130 interrupted.";
