//! What `kcompile` prints without arguments.

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
  configs    list  check  config  add
  images     inspect  extract  boot  verify  diff  push
  cache      cache  ccache  clean
  help       help  man  completions

`kcompile -h` lists the options of a build, `kcompile help COMMAND` others.
";
