use super::*;

const BASE: &str = "title = \"base\"\nsource = \"a book\"\n[[option]]\nsymbols = [\"A\", \"B|C\"]\n\
                    level = \"required\"\nreason = \"why\"\n";

fn library(texts: &[(&str, &str)]) -> ConfigLibrary {
    let named: Vec<(String, &str)> = texts.iter().map(|(name, text)| (Profile::path(name), *text)).collect();
    ConfigLibrary::from_texts(named.iter().map(|(name, text)| (name.as_str(), *text)))
}

fn mistake(text: &str) -> String {
    read(&library(&[("base", text)]), "base").unwrap_err().to_string()
}

#[test]
fn an_own_line_replaces_an_included_one() {
    let over = "title = \"over\"\nsource = \"s\"\ninclude = [\"base\", \"twin\"]\n[[option]]\n\
                symbols = [\"C|B\"]\nlevel = \"recommended\"\nvalue = \"y\"\nreason = \"r\"\n";
    let profile = read(&library(&[("base", BASE), ("twin", BASE), ("over", over)]), "over").unwrap();
    let lines: Vec<(String, Level, &str)> = profile
        .options
        .iter()
        .map(|line| (line.alternatives[0].to_string(), line.level, line.source.as_str()))
        .collect();
    assert_eq!(
        lines,
        [("A".to_owned(), Level::Required, "a book"), ("C".to_owned(), Level::Recommended, "s")]
    );
}

#[test]
fn what_a_profile_says_has_no_control_characters() {
    let text = BASE.replace("why", "a\\u001b[2Jb").replace("a book", "c\\u202ed");
    let profile = read(&library(&[("base", &text)]), "base").unwrap();
    assert_eq!(profile.options[0].reason, "a\\u{1b}[2Jb");
    assert_eq!(profile.options[0].source, "c\\u{202e}d");
}

#[test]
fn a_mistake_names_file_line_and_field() {
    for (text, says) in [
        (BASE.replace("required", "needed"), "line 5, column 9: level: unknown variant `needed`"),
        (BASE.replace("\"A\"", "\"CONFIG_A\""), "line 4, column 11: symbols: `CONFIG_A`: symbols are"),
        (BASE.replace("B|C", "B|"), "line 4, column 11: symbols: `B|`: not a symbol"),
        (format!("{BASE}kernel = \"<=5.1\"\n"), "line 7, column 10: kernel: `<=5.1` is not a range"),
        (format!("{BASE}arch = [\"mips\"]\n"), "line 7, column 9: arch: unknown variant `mips`"),
        (format!("{BASE}valeu = \"y\"\n"), "line 7, column 1: valeu: unknown field `valeu`"),
        (BASE.replace("reason = \"why\"", ""), "missing field `reason`"),
        (
            format!("{BASE}value = \"y\"\n").replace("required", "forbidden"),
            "value: not allowed in a forbidden option",
        ),
        (BASE.replace("B|C", "!B").replace("required", "forbidden"), "symbols: `!` is not allowed"),
        (BASE.replace("[\"A\", \"B|C\"]", "[]"), "symbols: the list is empty"),
    ] {
        let message = mistake(&text);
        assert!(
            message.starts_with("configs/requirements/base.toml: TOML parse error at line "),
            "{message}"
        );
        assert!(message.contains(says), "`{says}` is not in: {message}");
    }
}

#[test]
fn circles_and_unknown_names_are_refused() {
    let to = |name: &str| format!("title = \"t\"\nsource = \"s\"\ninclude = [\"{name}\"]\n");
    let library = library(&[("a", &to("b")), ("b", &to("a")), ("c", &to("d"))]);
    let message = |name: &str| read(&library, name).unwrap_err();
    assert_eq!(message("a").to_string(), "configs/requirements/a.toml: include: `a` includes itself");
    assert_eq!(message("c").to_string(), "configs/requirements/c.toml: include: there is no profile `d`");
    assert_eq!(message("x").to_string(), "unknown requirement profile `x`");
    assert_eq!(message("x").hint_text(), Some("the known profiles are a, b, c"));
}

#[test]
fn older_releases_of_kubernetes_keep_what_newer_ones_drop() {
    let library = ConfigLibrary::built_in();
    let level = |profile: &str, symbol: &str| {
        let profile = read(&library, profile).unwrap();
        let line = profile.options.iter().find(|line| line.alternatives[0].symbol == symbol);
        line.map(|line| line.level)
    };
    assert_eq!(level("kubernetes-1.37", "IP_VS_RR"), None);
    assert_eq!(level("kubernetes-1.36", "IP_VS_RR"), Some(Level::Recommended));
    assert_eq!(level("kubernetes-1.35", "CGROUP_DEVICE"), Some(Level::Recommended));
    assert_eq!(level("kubernetes-1.34", "CGROUP_DEVICE"), Some(Level::Required));
    assert_eq!(level("kubernetes-1.34", "PSI"), Some(Level::Required));
}

#[test]
fn the_tables_of_iptables_need_the_legacy_option() {
    let library = ConfigLibrary::built_in();
    for name in names(&library) {
        let profile = read(&library, &name).unwrap();
        let required = |symbol: &str| {
            profile.options.iter().any(|line| {
                line.level == Level::Required && line.alternatives.iter().all(|one| one.symbol == symbol)
            })
        };
        if required("IP_NF_FILTER") || required("IP_NF_IPTABLES") {
            assert!(required("NETFILTER_XTABLES_LEGACY"), "{name}");
        }
    }
}

#[test]
fn the_built_in_profiles_are_sound() {
    let library = ConfigLibrary::built_in();
    let known = names(&library);
    for name in [
        "firecracker",
        "firecracker-pci",
        "cloud-hypervisor",
        "flintlock",
        "kubernetes",
        "kubernetes-1.34",
        "kubernetes-1.35",
        "kubernetes-1.36",
        "kubernetes-1.37",
        "kube-proxy-ipvs",
        "docker",
        "cilium",
        "calico",
        "hardening",
    ] {
        assert!(known.iter().any(|known| known == name), "{name} is missing");
    }
    for profile in read_all(&library, &known).unwrap() {
        assert!(!profile.options.is_empty(), "{}", profile.name);
        for line in &profile.options {
            assert!(
                !line.reason.is_empty() && line.source.contains("https://"),
                "{}: {line:?}",
                profile.name
            );
        }
    }
}
